from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "pyarrow", "matplotlib", "jinja2"}


def imported_by(code: str) -> set[str]:
    script = (
        f"import sys, contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n {code}\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_is_cheap() -> None:
    assert not HEAVY & imported_by("import predilect, predilect.data, predilect.modeling, predilect.evaluation")


def test_help_is_cheap() -> None:
    help_ = "from predilect.cli import app; app(['--help'], standalone_mode=False)"
    assert not HEAVY & imported_by(help_)


def test_public_names_exist_and_others_do_not() -> None:
    import predilect

    for name in predilect.__all__:
        assert getattr(predilect, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = predilect.lod
