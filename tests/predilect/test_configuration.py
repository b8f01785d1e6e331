"""Options as dataclasses: inherited ones with other defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from predilect.configuration import field_types, make_config, new_defaults, option


@dataclass
class Base:
    epochs: int = option("Passes over the rows.", panel="Training", default=3)
    kind: Literal["a", "b"] = option("Which kind.", default="a")
    more: dict[str, Any] = option("Anything.", default={})


@dataclass
@new_defaults(epochs=10, kind="b", more={"x": 1})
class Changed(Base):
    width: int = option("Width.", default=8)


def test_new_defaults_keep_everything_but_the_default() -> None:
    assert Changed() == Changed(epochs=10, kind="b", more={"x": 1}, width=8)
    assert Base() == Base(epochs=3, kind="a", more={})
    assert field_types(Changed) == {**field_types(Base), "width": int}
    own = {field.name: field.metadata for field in fields(Changed)}
    assert all(own[field.name] == field.metadata for field in fields(Base))


def test_new_defaults_are_copied_for_every_instance() -> None:
    one = Changed()
    one.more["x"] = 2
    assert Changed().more == {"x": 1}


def test_new_defaults_are_checked_like_any_others() -> None:
    with pytest.raises(ValueError, match="file: kind must be one of a, b"):
        make_config(Changed, {"kind": "c"}, source="file")
    with pytest.raises(TypeError, match="Other inherits no option epoch"):

        @dataclass
        @new_defaults(epoch=1)
        class Other(Base):
            pass
