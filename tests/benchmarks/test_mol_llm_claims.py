from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import mol_llm_pairs

    return mol_llm_pairs


@pytest.fixture
def bench(study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Chains in water, of which fingerprints can tell the end."""
    solutes = ["C" * n + end for n in range(1, 21) for end in ("O", "N", "Cl")]
    rows = [f"{s},O,{-5.0 if s.endswith('O') else 1.0}" for s in solutes]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,target", *rows]) + "\n")
    options = {"data": tmp_path / "pairs.csv", "split": "first"}
    monkeypatch.setattr(study, "DATA", {"chains": options})
    kept = ("mean", "fingerprints", "MolTC")
    monkeypatch.setattr(study, "SYSTEMS", {name: study.SYSTEMS[name] for name in kept})
    monkeypatch.setattr(sys, "argv", ["script"])
    return study.Bench("chains", study.Options(False, tmp_path, tmp_path))


def test_runs_are_kept_and_what_needs_a_flag_is_listed_as_not_run(
    study: Any, bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = study.Found(bench)
    assert capsys.readouterr().out.count("done") == 3  # the mean, and two settings of the trees
    assert list(study.missing_of(found)) == ["chains, MolTC, seeds 0, 1, 2"]
    assert found.seeds("fingerprints") == [0, 1, 2]  # one run without chance stands for all
    assert found.better("MolTC", "mean") is None
    again = study.Found(bench)
    assert capsys.readouterr().out == ""
    assert again.better("fingerprints", "mean") == found.better("fingerprints", "mean")
    budget = {told["system"]: told for told in study.budget_of(found)}
    assert budget["chains, mean"]["trainings"] == 1
    assert budget["chains, fingerprints"]["chosen"].startswith("validation rows, first seed: learning_rate 0.")


def test_a_difference_is_how_much_lower_the_error_is(study: Any, bench: Any) -> None:
    found = study.Found(bench)
    truth = np.asarray(bench.data.test.targets)
    errors = [np.abs(np.asarray(found.runs[name][0]["test"]) - truth).mean() for name in ("fingerprints", "mean")]
    assert found.better("fingerprints", "mean").mean == pytest.approx(errors[1] - errors[0])


def test_files_of_chemprop_have_targets_for_training_only(study: Any, bench: Any, tmp_path: Path) -> None:
    data = bench.data
    study._written(tmp_path / "all.csv", {"train": data.train, "val": data.validation})
    study._written(tmp_path / "asked.csv", {"test": data.test})
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert lines[0] == "first,second,target,split"
    assert len(lines) == 1 + len(data.train) + len(data.validation)
    assert lines[-1].endswith(",val")
    assert (tmp_path / "asked.csv").read_text().splitlines()[0] == "first,second"
