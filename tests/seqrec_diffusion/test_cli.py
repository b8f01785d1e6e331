from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from predilect.cli import app
from predilect.cli.progress import TrainingProgress
from predilect.data import load
from predilect.evaluation import Evaluation, evaluate
from predilect.evaluation.further import with_further_metrics
from predilect.recommender import Recommender
from predilect.recommenders import Popularity
from seqrec_diffusion import DreamRec, PreferDiff

Run = Callable[..., Result]
SMALL = {
    "hidden_size": 16, "timesteps": 50, "schedule": "exp", "max_epochs": 4, "steps": 5,
    "batch_size": 64, "learning_rate": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    def start(*arguments: object) -> Result:
        """Training and options are commands of the core; the others are those of `predilect dreamrec`."""
        first = [] if arguments[0] in ("train", "options") else ["dreamrec"]
        return CliRunner().invoke(app, [*first, *map(str, arguments)], env={"COLUMNS": "200"})

    return start


@pytest.fixture(scope="module")
def log_file(planted_log: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted log as a person's own CSV, with titles."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        writer.writerows(zip(*planted_log.values(), strict=True))
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title"])
        writer.writerows([i, f'The "{i}th" $Hour$ (20{i:02d})'] for i in range(1, 21))
    return folder


@pytest.fixture(scope="module")
def data(log_file: Path) -> list[str]:
    return ["--data", str(log_file), "--k-core", "0", "--bootstrap", "20"]


@pytest.fixture(scope="module")
def options(data: list[str]) -> list[str]:
    return [*data, *(text for name, value in SMALL.items() for text in ("--set", f"{name}={value}"))]


@pytest.fixture(scope="module")
def trained(run: Run, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "dreamrec"
    result = run("train", "dreamrec", *options, "--output-dir", folder)
    assert result.exit_code == 0, result.output
    return folder, result.output


def results(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "evaluation.json").read_text())["results"]
    return found


def test_train_tells_every_epoch_and_keeps_the_recommender(trained: tuple[Path, str], log_file: Path) -> None:
    folder, told = trained
    lines = [line for line in told.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    reached = [float(line.split("ndcg@10 ")[1].split(";")[0].rstrip("*")) for line in lines]
    marked = ["*" in line for line in lines]
    assert marked == [value > max(reached[:i], default=-1) for i, value in enumerate(reached)]
    assert all(name in line for line in lines for name in ("loss", "variance", "effective_rank", "margin"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "catalogue.parquet", "evaluation", "method.json", "model", "run.json",
    ]  # fmt: skip
    splits = load(str(log_file)).split("temporal", max_history=10)
    own = with_further_metrics(
        evaluate(Recommender.from_pretrained(folder), splits, "test", bootstrap=20), splits, print
    )
    assert results(folder / "evaluation") == own.results
    kept = json.loads((folder / "method.json").read_text())["config"]
    assert (kept["sampler"], kept["steps"], kept["guidance"]) == ("ddim", 5, 0.0)


def test_predilect_recommend_answers(trained: tuple[Path, str]) -> None:
    command = ["recommend", 'The "3th" $Hour$', "--model", str(trained[0]), "-k", "4", "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    here = Recommender.from_pretrained(trained[0]).recommend([3], k=4)
    assert [r["item_id"] for r in told["recommendations"]] == [r.item_id for r in here]


def test_evaluate_gives_the_numbers_of_train_again(
    run: Run, trained: tuple[Path, str], data: list[str], tmp_path: Path
) -> None:
    result = run("evaluate", "--model", trained[0], *data, "--output-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "evaluation.json").read_text() == (trained[0] / "evaluation" / "evaluation.json").read_text()
    assert not (tmp_path / "sweep.json").exists()


def test_a_sweep_measures_what_evaluate_measures_on_the_validation_rows(
    run: Run, trained: tuple[Path, str], data: list[str], log_file: Path, tmp_path: Path
) -> None:
    flags = ["--steps", "2,50", "--guidance", "0,0.5", "--sampler", "ddpm", "--sampling-seed", 7, "--draws", 2]
    result = run("evaluate", "--model", trained[0], *data, *flags, "--output-dir", tmp_path, "--map-users", 2)
    assert result.exit_code == 0, result.output
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    assert sweep["setting"]["part"] == "validation"
    splits = load(str(log_file)).split("temporal", max_history=10)
    grid = list(itertools.product((2, 50), (0.0, 0.5)))
    assert [(p["sampling"]["steps"], p["sampling"]["guidance"]) for p in sweep["points"]] == grid
    for (steps, guidance), point in zip(grid, sweep["points"], strict=True):
        recommender = DreamRec.from_pretrained(trained[0]).set_sampling(
            sampler="ddpm", steps=steps, guidance=guidance, sampling_seed=7, draws=2
        )
        own = with_further_metrics(evaluate(recommender, splits, "validation", bootstrap=20), splits, print)
        assert point["results"] == own.results
        kept = Evaluation.load(tmp_path / f"steps-{steps}-guidance-{guidance:g}")
        assert kept.rows["rank"] == own.rows["rank"]
        assert f"{own.results['ndcg@10']:.4f}" in result.output
    drawn = {p.name for p in tmp_path.glob("*.png")}
    assert drawn == {"steps.png", "guidance.png", "map.png"}
    untouched = DreamRec.from_pretrained(trained[0]).config
    assert (untouched.sampler, untouched.steps, untouched.draws) == ("ddim", 5, 1)


def test_the_part_is_test_for_one_sampling_and_may_be_said(
    run: Run, trained: tuple[Path, str], data: list[str]
) -> None:
    command = ["evaluate", "--model", trained[0], *data, "--guidance"]
    assert "test rows" in run(*command, "0").output
    assert "validation rows" in run(*command, "0,1").output
    assert "test rows" in run(*command, "0,1", "--part", "test").output


def test_without_matplotlib_the_numbers_are_kept(
    run: Run, trained: tuple[Path, str], data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("evaluate", "--model", trained[0], *data, "--steps", "2,5", "--output-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "pip install 'seqrec-diffusion[plots]'" in result.output
    assert len(json.loads((tmp_path / "sweep.json").read_text())["points"]) == 2
    assert not list(tmp_path.glob("*.png"))


def test_sample_shows_the_items_nearest_to_each_draw(run: Run, trained: tuple[Path, str]) -> None:
    asked = ["sample", "2", 'the "3th" $hour$', "--model", trained[0], "--draws", 3, "-k", 4, "--guidance", 1]
    told = json.loads(run(*asked, "--sampling-seed", 5, "--json").stdout)
    assert [item["item_id"] for item in told["history"]] == [2, 3]
    recommender = DreamRec.from_pretrained(trained[0])
    vectors = recommender.model.item_vectors
    for number, draw in enumerate(told["draws"]):
        recommender.set_sampling(guidance=1.0, sampling_seed=5 + number)
        scores = (recommender.oracle_embeddings(torch.tensor([[2, 3]])) @ vectors.T)[0]
        best = torch.argsort(scores, descending=True)[:4]
        assert draw["sampling_seed"] == 5 + number
        assert [item["item_id"] for item in draw["nearest"]] == (best + 1).tolist()
        assert [item["score"] for item in draw["nearest"]] == pytest.approx(scores[best].tolist(), rel=1e-5)
    assert len({json.dumps(draw["nearest"]) for draw in told["draws"]}) == 3
    table = run(*asked).output
    assert 'after The "2th" $Hour$ (2002), The "3th" $Hour$ (2003)' in table


def test_a_killed_run_is_resumed_to_the_same_weights(
    run: Run, trained: tuple[Path, str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = TrainingProgress.on_evaluate

    def killed(self: TrainingProgress, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.epoch > 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        told(self, args, state, control, **kwargs)

    monkeypatch.setattr(TrainingProgress, "on_evaluate", killed)
    command = ["train", "dreamrec", *options, "--output-dir", tmp_path / "run"]
    assert run(*command).exit_code != 0
    assert not (tmp_path / "run" / "method.json").exists()
    monkeypatch.undo()
    assert "--resume" in run(*command).output
    resumed = run(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    lines = [line.split(":")[0] for line in resumed.output.splitlines() if line.startswith("epoch ")]
    assert lines == ["epoch 3", "epoch 4"]
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (trained[0], tmp_path / "run"))
    assert all(torch.equal(one[key], two[key]) for key in one | two)
    assert results(tmp_path / "run" / "evaluation") == results(trained[0] / "evaluation")


def test_a_folder_in_use(run: Run, options: list[str], tmp_path: Path) -> None:
    command = ["train", "dreamrec", *options, "--set", "max_epochs=1", "--output-dir", tmp_path / "run"]
    assert run(*command).exit_code == 0
    assert "--overwrite" in run(*command).output
    assert "guidance: 0.0 before, 1.0 now" in run(*command, "--set", "guidance=1", "--resume").output
    assert "choose one" in run(*command, "--resume", "--overwrite").output
    finished = run(*command, "--resume", "--test-rows", 9)  # ranked again, not trained again
    assert finished.exit_code == 0, finished.output
    assert "epoch 1" not in finished.output
    assert results(tmp_path / "run" / "evaluation")["rows"] == 9
    again = run(*command, "--set", "guidance=1", "--overwrite")
    assert again.exit_code == 0, again.output
    assert DreamRec.from_pretrained(tmp_path / "run").config.guidance == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused = run("train", "dreamrec", *options, "--overwrite", "--output-dir", tmp_path / "mine")
    assert "was not written by a run of train" in refused.output
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_preset_set_quick_and_a_file(run: Run, options: list[str], data: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("preset: zhihu\nset: {timesteps: 20, hidden_size: 8}\nseed: 3\n")
    command = [
        "train",
        "dreamrec",
        "--config",
        tmp_path / "run.yaml",
        *data,
        "--quick",
        "--output-dir",
        tmp_path / "run",
    ]
    result = run(*command, "--set", "timesteps=10")
    assert result.exit_code == 0, result.output
    config = DreamRec.from_pretrained(tmp_path / "run").config
    assert (config.timesteps, config.hidden_size, config.max_epochs, config.seed) == (10, 8, 1, 3)
    assert (config.guidance, config.sampler, config.learning_rate) == (4.0, "ddpm", 0.01)  # the preset's
    again = run("evaluate", "--model", tmp_path / "run", *data, "--output-dir", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again" / "sampling.json").read_text())["steps"] == 10  # T


def test_the_softmax_control_has_nothing_to_sample(run: Run, options: list[str], tmp_path: Path) -> None:
    data, folder = options[: options.index("--set")], tmp_path / "run"
    result = run("train", "dreamrec", *options, "--set", "objective=softmax", "--quick", "--output-dir", folder)
    assert result.exit_code == 0, result.output
    assert (
        "samples nothing: leave out sampler, steps"
        in run("evaluate", "--model", folder, *data, "--sampler", "ddim", "--steps", 2).output
    )
    kept = run("evaluate", "--model", folder, *data, "--output-dir", tmp_path / "again")
    assert kept.exit_code == 0, kept.output
    assert results(tmp_path / "again") == results(folder / "evaluation")
    assert not list((tmp_path / "again").glob("*.png"))
    assert "softmax" in run("sample", "2", "--model", folder).output


def test_mistakes_are_named(run: Run, trained: tuple[Path, str], data: list[str], tmp_path: Path) -> None:
    train = ["train", "dreamrec", *data, "--output-dir", tmp_path / "x"]
    assert "did you mean timesteps" in run(*train, "--set", "timestep=3").output
    assert "must be a whole number (got 'many')" in run(*train, "--set", "timesteps=many").output
    assert "did you mean zhihu" in run(*train, "--preset", "zhiu").output
    assert "steps must be at most timesteps, 10 (got 20)" in run(*train, "--set", "timesteps=10").output
    assert not (tmp_path / "x").exists()
    asked = ["evaluate", *data, "--model", trained[0]]
    assert "steps must be at most timesteps, 50 (got 51)" in run(*asked, "--steps", "5,51").output
    assert "guidance must be a number of at least 0 (got -1.0)" in run(*asked, "--guidance", "-1").output
    assert "guidance must be distinct (got 1.0, 1.0)" in run(*asked, "--guidance", "1,1").output
    assert "--steps takes values of type int (got 'few')" in run(*asked, "--steps", "few").output
    assert "map_users must be in 0..6" in run(*asked, "--map-users", "7").output
    assert "(got 0)" in run(*asked, "--draws", "0").output
    assert "fitted on 20 items" in run("evaluate", "--model", trained[0], "--k-core", "20").output
    assert "did you mean" in run("sample", "Hour", "--model", trained[0]).output
    assert str(tmp_path / "nowhere") in run("sample", "2", "--model", tmp_path / "nowhere").output.replace("\n", "")


def test_options_are_listed_with_their_defaults(run: Run) -> None:
    lines = run("options", "dreamrec").output.splitlines()
    assert lines[lines.index("timesteps = 500") + 1].strip() == "T, the number of diffusion steps."
    assert any(line.startswith("zhihu") for line in lines)
    assert "zhihu" not in run("options", "preferdiff").output
    assert "preference_weight = 0.6" in run("options", "preferdiff").output


def test_preferdiff_is_trained_ranked_and_sampled(
    run: Run, options: list[str], data: list[str], tmp_path: Path
) -> None:
    refused = run("train", "preferdiff", "--preset", "zhihu", *data, "--output-dir", tmp_path / "x")
    assert "the preset zhihu is for dreamrec (got preferdiff)" in refused.output
    command = ["train", "preferdiff", *options, "--quick", "--output-dir", tmp_path / "run"]
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert isinstance(Recommender.from_pretrained(tmp_path / "run"), PreferDiff)
    again = run("evaluate", *data, "--model", tmp_path / "run", "--output-dir", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert results(tmp_path / "again") == results(tmp_path / "run" / "evaluation")
    assert run("sample", "2", "--model", tmp_path / "run").exit_code == 0


def test_another_recommender_is_refused(run: Run, log_file: Path, tmp_path: Path) -> None:
    Popularity().fit(load(str(log_file)).split("temporal")).save_pretrained(tmp_path)
    assert "holds 'popularity', which is no diffusion recommender" in run("sample", "2", "--model", tmp_path).output


@pytest.mark.slow
def test_two_processes_train_one_recommender(options: list[str], log_file: Path, tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["predilect", "train", "dreamrec", *options, "--output-dir", str(tmp_path / "two")]
    done = forked.run([*launch, *command], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    assert done.stdout.count("epoch 1:") == 1
    assert not (tmp_path / "two" / "fit").exists()
    splits = load(str(log_file)).split("temporal", max_history=10)
    own = with_further_metrics(
        evaluate(Recommender.from_pretrained(tmp_path / "two"), splits, "test", bootstrap=20), splits, print
    )
    assert results(tmp_path / "two" / "evaluation") == own.results
