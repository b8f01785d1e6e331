from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import predilect.evaluation


def test_import_pulls_nothing_heavy() -> None:
    code = "import sys, predilect.evaluation; print(sorted({'torch', 'datasets', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    names = predilect.evaluation.__all__
    assert all(callable(getattr(predilect.evaluation, name)) for name in names)
    # A module of that name would hide the function as soon as anything imported the module.
    assert not {path.stem for path in Path(predilect.evaluation.__file__).parent.glob("*.py")} & set(names)
