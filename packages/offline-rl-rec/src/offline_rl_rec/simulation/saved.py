"""Simulated users in a folder: `users.json` for their numbers, `users.safetensors` for their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from offline_rl_rec.sessions import RewardRule
from offline_rl_rec.simulation.users import Leaving, UserSimulator
from predilect.data import Catalogue
from predilect.runs import catalogue_fingerprint, read_json, whole_folder, write_json

_JSON, _TABLES = "users.json", "users.safetensors"
_SHARED = ("patience", "reluctance", "seed", "max_history", "num_items", "outside")


def save_users(users: UserSimulator, folder: str | Path, catalogue: Catalogue) -> None:
    """Write fitted users into a folder, whole or not at all.

    Args:
        users: fitted.
        folder: new, or empty.
        catalogue: of the data that they were fitted on; what reads them is told where it has another.

    Raises:
        ValueError: users that were not fitted, or another catalogue.
        FileExistsError: a folder with something in it.
    """
    folder = Path(folder)
    if not hasattr(users, "starts"):
        raise ValueError(f"these {users.name} users were not fitted: call fit before save_pretrained")
    if len(catalogue) != users.num_items:
        raise ValueError(
            f"the users were fitted on {users.num_items} items and the catalogue has {len(catalogue)}: pass that of "
            "the data they were fitted on"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder: name another one for the users")
    numbers, tables = users.state()
    tables = {**tables, "starts": users.starts, "hazard": users.leaving.hazard}
    about = {
        "users": users.name,
        "catalogue": catalogue_fingerprint(catalogue),
        "rule": asdict(users.rule),
        "shared": {name: getattr(users, name) for name in _SHARED},
        "own": dict(numbers),
    }
    with whole_folder(folder) as temporary:
        save_file({name: np.ascontiguousarray(values) for name, values in tables.items()}, temporary / _TABLES)
        write_json(temporary / _JSON, about)


def load_users(
    folder: str | Path, families: Mapping[str, type[UserSimulator]], catalogue: Catalogue | None = None
) -> UserSimulator:
    """The users that `save_users` wrote: their next session is that of the saved ones to the last bit.

    Args:
        folder: of them.
        families: name -> class, of those that may be read.
        catalogue: of the data at hand; None: not compared.

    Raises:
        FileNotFoundError: no saved users there.
        ValueError: users of another family or of another catalogue, or files that are damaged.
    """
    folder = Path(folder)
    if not (folder / _JSON).is_file() or not (folder / _TABLES).is_file():
        raise FileNotFoundError(
            f"{folder} holds no saved users ({_JSON}, {_TABLES}): write them with save_pretrained or "
            "predilect rl simulate --keep-users FOLDER"
        )
    try:
        about: dict[str, Any] = read_json(folder / _JSON)
        kind, shared, own, rule = about["users"], about["shared"], about["own"], about["rule"]
        tables = load_file(folder / _TABLES)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"the saved users in {folder} are damaged ({error}): write them again") from None
    if kind not in families:
        raise ValueError(f"{folder} holds {kind} users, where {', '.join(families)} can be read")
    if catalogue is not None and about["catalogue"] != catalogue_fingerprint(catalogue):
        raise ValueError(
            f"the users in {folder} were fitted on another catalogue of {shared['num_items']:,} items than these data "
            f"({len(catalogue):,} items): give the data and the options (--data, --k-core) that they were fitted with"
        )
    users = families[kind]()
    for name in _SHARED:
        setattr(users, name, shared[name])
    users.rule = RewardRule(**{**rule, "purchases": tuple(rule["purchases"])})
    users.starts, users.leaving = tables.pop("starts"), Leaving(tables.pop("hazard"))
    users.restore(own, tables)
    return users
