"""Training: it learns, it stops early, and a killed run ends like an unbroken one."""

from __future__ import annotations

import math
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, set_seed

from predilect.modeling import GRU4Rec, GRU4RecConfig, SASRec, SASRecConfig
from predilect.training import NextItemRows, NextItemTrainer, newest_checkpoint, next_item_arguments


def rows_of(splits, part: str) -> NextItemRows:
    return NextItemRows(splits.part(part))


def make_trainer(
    splits, folder: Path, *, max_epochs=4, patience=10, callbacks=(), model=None, **options
) -> NextItemTrainer:
    set_seed(0)
    if model is None:
        model = SASRec(SASRecConfig(num_items=splits.num_items, hidden_size=16, max_history=5, dropout=0.3))
    options = {"learning_rate": 0.005, "seed": 0, "data_seed": 0, "use_cpu": True, **options}
    arguments = next_item_arguments(folder, max_epochs=max_epochs, batch_size=32, **options)
    data = (rows_of(splits, part) for part in ("train", "validation"))
    return NextItemTrainer(model, arguments, *data, patience=patience, callbacks=callbacks)


def curve(trainer: NextItemTrainer) -> list[float]:
    return [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]


def weights(trainer: NextItemTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_same_end(one: NextItemTrainer, other: NextItemTrainer) -> None:
    assert curve(one) == curve(other)
    assert one.state.global_step == other.state.global_step
    assert one.state.best_global_step == other.state.best_global_step
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


class StopHere(TrainerCallback):
    """A kill that leaves no time to save: raises in the middle of an epoch, or before its end is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


class Scripted(NextItemTrainer):
    """A validation metric that follows a script, by epoch."""

    script = (0.1, 0.5, 0.2, 0.3, 0.9, 0.1)

    def evaluate(self, *args, **kwargs):
        metrics = {"eval_ndcg@10": self.script[round(self.state.epoch) - 1]}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def scripted(splits, folder: Path, *, patience: int, callbacks=()) -> Scripted:
    set_seed(0)
    model = GRU4Rec(GRU4RecConfig(num_items=splits.num_items, hidden_size=8, max_history=5))
    arguments = next_item_arguments(folder, max_epochs=6, batch_size=128, seed=0, use_cpu=True)
    data = (rows_of(splits, part) for part in ("train", "validation"))
    return Scripted(model, arguments, *data, patience=patience, callbacks=callbacks)


def test_rows_are_cut_by_one_index(tiny_splits):
    rows = rows_of(tiny_splits, "train")
    batch = rows.__getitems__([3, 0])
    assert batch["history"].tolist() == [tiny_splits.train.histories([i])[0].tolist() for i in (3, 0)]
    assert batch["target"].tolist() == [tiny_splits.train.target[3], tiny_splits.train.target[0]]
    assert rows[3]["target"].tolist() == [tiny_splits.train.target[3]]


def test_learns_the_ring(tiny_splits, tmp_path):
    trainer = make_trainer(tiny_splits, tmp_path, max_epochs=15, learning_rate=0.01)
    trainer.train()
    assert max(curve(trainer)) > 0.9
    rows = tiny_splits.test
    assert (trainer.model.eval().scores(rows.histories()).argmax(1) + 1 == rows.targets()).float().mean() > 0.9


def test_validation_metric_equals_a_plain_computation(tiny_splits, tmp_path):
    trainer = make_trainer(tiny_splits, tmp_path)
    ours = trainer.evaluate()["eval_ndcg@10"]
    gains = []
    scores = trainer.model.eval().scores(tiny_splits.validation.histories())
    for row, own in zip(tiny_splits.validation.to_dataset(), scores.tolist(), strict=True):
        sequence = tiny_splits.sequences
        start = sequence.offsets[row["user_id"]]
        seen = set(sequence.items[start : start + row["position"]].tolist()) - {row["target"]}
        rank = sum(own[i - 1] >= own[row["target"] - 1] for i in range(1, 21) if i not in seen)
        gains.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
    assert ours == pytest.approx(sum(gains) / len(gains), abs=1e-12)


def test_evaluation_does_not_depend_on_its_batch_size(tiny_splits, tmp_path):
    trainer = make_trainer(tiny_splits, tmp_path)
    whole = trainer.evaluate()
    trainer.args.per_device_eval_batch_size = 7
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(whole["eval_ndcg@10"], abs=1e-12)


def test_keeps_the_best_epoch_and_stops_after_patience(tiny_splits, tmp_path):
    trainer = scripted(tiny_splits, tmp_path, patience=2)
    trainer.train()
    assert curve(trainer) == [0.1, 0.5, 0.2, 0.3]
    best = tmp_path / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_global_step * 2 == trainer.state.global_step
    for name, tensor in load_file(best / "model.safetensors").items():
        assert torch.equal(tensor, weights(trainer)[name])


def test_checkpoints_are_few_and_hold_no_pickled_arguments(tiny_splits, tmp_path):
    make_trainer(tiny_splits, tmp_path).train()
    checkpoints = list(tmp_path.glob("checkpoint-*"))
    assert len(checkpoints) <= 2
    assert not list(tmp_path.rglob("*.bin"))


def test_same_seed_same_weights(tiny_splits, tmp_path):
    one, same, other = (
        make_trainer(tiny_splits, tmp_path / str(i), max_epochs=2, seed=seed, data_seed=seed)
        for i, seed in enumerate((0, 0, 1))
    )
    for trainer in (one, same, other):
        set_seed(trainer.args.seed)
        trainer.train()
    assert_same_end(one, same)
    assert curve(one) != curve(other) or any(not torch.equal(t, weights(other)[n]) for n, t in weights(one).items())


@pytest.mark.parametrize("step", [1, 40, 48, 60])
def test_resumed_run_ends_like_an_unbroken_one(tiny_splits, tmp_path, step):
    unbroken = make_trainer(tiny_splits, tmp_path / "unbroken")
    unbroken.train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tiny_splits, tmp_path / "broken", callbacks=[StopHere(step)]).train()
    set_seed(12345)  # a new process would not be in the old one's random state either
    resumed = make_trainer(tiny_splits, tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(unbroken, resumed)


def test_patience_continues_where_it_was(tiny_splits, tmp_path):
    steps = math.ceil(len(tiny_splits.train) / 128)
    with pytest.raises(KeyboardInterrupt):  # in epoch 4, after one epoch without progress
        scripted(tiny_splits, tmp_path, patience=2, callbacks=[StopHere(3 * steps + 1)]).train()
    resumed = scripted(tiny_splits, tmp_path, patience=2)
    resumed.train(resume_from_checkpoint=True)
    assert curve(resumed) == [0.1, 0.5, 0.2, 0.3]


def test_resuming_a_stopped_run_changes_nothing(tiny_splits, tmp_path):
    first = scripted(tiny_splits, tmp_path, patience=2)
    first.train()
    again = scripted(tiny_splits, tmp_path, patience=2)
    again.train(resume_from_checkpoint=True)
    assert_same_end(first, again)


def test_resuming_a_complete_run_changes_nothing(tiny_splits, tmp_path):
    first = make_trainer(tiny_splits, tmp_path)
    first.train()
    again = make_trainer(tiny_splits, tmp_path)
    again.train(resume_from_checkpoint=True)
    assert_same_end(first, again)


def test_run_continues_in_a_folder_that_was_moved(tiny_splits, tmp_path):
    first = scripted(tiny_splits, tmp_path / "old", patience=2)
    first.train()
    shutil.move(tmp_path / "old", tmp_path / "new")
    again = scripted(tiny_splits, tmp_path / "new", patience=2)
    again.train(resume_from_checkpoint=True)
    assert_same_end(first, again)


def test_resume_without_checkpoint_starts_anew(tiny_splits, tmp_path):
    first = make_trainer(tiny_splits, tmp_path / "first", max_epochs=1)
    first.train()
    resumed = make_trainer(tiny_splits, tmp_path / "empty", max_epochs=1)
    resumed.train(resume_from_checkpoint=True)
    assert_same_end(first, resumed)


def test_a_run_that_does_not_resume_deletes_old_checkpoints_only_when_asked(tiny_splits, tmp_path):
    stale = tmp_path / "checkpoint-999999"
    shutil.copytree(_checkpoint(tiny_splits, tmp_path / "other"), stale)
    with pytest.raises(ValueError, match=r"holds checkpoint-999999 of an earlier run: .*overwrite=True"):
        make_trainer(tiny_splits, tmp_path, max_epochs=1).train()
    assert stale.exists()
    make_trainer(tiny_splits, tmp_path, max_epochs=1).train(overwrite=True)
    assert not stale.exists()


def test_resumes_from_the_checkpoint_that_is_named(tiny_splits, tmp_path):
    unbroken = make_trainer(tiny_splits, tmp_path / "run", save_total_limit=None)
    unbroken.train()
    steps = unbroken.state.global_step // 4
    second = tmp_path / "run" / f"checkpoint-{2 * steps}"
    seen = []

    class Steps(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    elsewhere = make_trainer(tiny_splits, tmp_path / "elsewhere", callbacks=[Steps()])
    elsewhere.train(resume_from_checkpoint=str(second))
    assert seen[0] == 2 * steps + 1
    assert_same_end(unbroken, elsewhere)
    again = make_trainer(tiny_splits, tmp_path / "run", save_total_limit=None)
    with pytest.raises(ValueError, match=f"checkpoint-{3 * steps}.*of an earlier run"):
        again.train(resume_from_checkpoint=second)
    again.train(resume_from_checkpoint=second, overwrite=True)
    assert_same_end(unbroken, again)
    with pytest.raises(ValueError, match="checkpoint-7 is not a whole checkpoint"):
        again.train(resume_from_checkpoint=tmp_path / "checkpoint-7")


def test_evaluates_other_rows(tiny_splits, tmp_path):
    trainer = make_trainer(tiny_splits, tmp_path)
    trainer.train()
    on_test = NextItemTrainer(trainer.model, trainer.args, trainer.train_dataset, rows_of(tiny_splits, "test"))
    found = trainer.evaluate(rows_of(tiny_splits, "test"), metric_key_prefix="test")
    assert found["test_ndcg@10"] == on_test.evaluate()["eval_ndcg@10"]
    assert found["test_ndcg@10"] != trainer.evaluate()["eval_ndcg@10"]


@pytest.mark.parametrize(
    "part", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_half_written_checkpoints_are_passed_over(tiny_splits, tmp_path, part, damage):
    whole = _checkpoint(tiny_splits, tmp_path / "run")
    assert newest_checkpoint(tmp_path / "run") == whole
    broken = whole.with_name(f"checkpoint-{int(whole.name.split('-')[1]) + 20}")
    shutil.copytree(whole, broken)
    if damage == "missing":
        (broken / part).unlink()
    else:  # files are written one after the other: what follows a half-written one does not exist
        (broken / part).write_bytes((broken / part).read_bytes()[: (broken / part).stat().st_size // 2])
        if part != "trainer_state.json":
            (broken / "trainer_state.json").unlink()
    assert newest_checkpoint(tmp_path / "run") == whole


def test_no_checkpoint_at_all(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-5").mkdir()
    assert newest_checkpoint(tmp_path) is None


def _checkpoint(splits, folder: Path) -> Path:
    make_trainer(splits, folder, max_epochs=1).train()
    (checkpoint,) = folder.glob("checkpoint-*")
    return checkpoint


def test_says_nothing(tiny_splits, tmp_path, capfd):
    trainer = make_trainer(tiny_splits, tmp_path, max_epochs=2)
    trainer.train()
    trainer = make_trainer(tiny_splits, tmp_path, max_epochs=2)
    trainer.train(resume_from_checkpoint=True)
    assert capfd.readouterr() == ("", "")


def test_callbacks_are_called(tiny_splits, tmp_path):
    class Epochs(TrainerCallback):
        seen: list[float] = []  # noqa: RUF012

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            self.seen.append(metrics["eval_ndcg@10"])

    callback = Epochs()
    trainer = make_trainer(tiny_splits, tmp_path, max_epochs=2, callbacks=[callback])
    trainer.train()
    assert callback.seen == curve(trainer)
    assert len(callback.seen) == 2


@pytest.mark.parametrize("part", ["train", "validation"])
def test_refuses_a_split_without_rows(tiny_splits, tmp_path, part):
    empty = replace(tiny_splits, **{part: tiny_splits.part(part).select([])})
    with pytest.raises(ValueError, match=f"no {part} rows"):
        make_trainer(empty, tmp_path)


def test_refuses_a_model_of_other_items(tiny_splits, tmp_path):
    with pytest.raises(ValueError, match=r"20 items \(got a model of 7\)"):
        make_trainer(tiny_splits, tmp_path, model=GRU4Rec(GRU4RecConfig(num_items=7)))


def test_refuses_patience_below_one(tiny_splits, tmp_path):
    with pytest.raises(ValueError, match=r"patience must be at least 1 \(got 0\)"):
        make_trainer(tiny_splits, tmp_path, patience=0)


SCRIPT = """
import sys
import torch
from datasets import Dataset
from transformers import set_seed
from predilect.data import RecDataset
from predilect.modeling import SASRec, SASRecConfig
from predilect.training import NextItemRows, NextItemTrainer, next_item_arguments

torch.set_num_threads(1)
folder, out = sys.argv[1:]
log = {"user_id": [], "item_id": [], "timestamp": [], "rating": []}
for user in range(60):
    for step in range(12):
        log["user_id"].append(user)
        log["item_id"].append((user * 7 + step) % 20 + 1)
        log["timestamp"].append(1000 * step + user)
        log["rating"].append(1.0)
ids = range(1, 21)
items = {"item_id": ids, "raw_id": map(str, ids), "title": map(str, ids), "categories": [["a"]] * 20}
items = {name: list(column) for name, column in items.items()}
splits = RecDataset(Dataset.from_dict(log), Dataset.from_dict(items), name="ring").split("temporal", max_history=5)
set_seed(0)
model = SASRec(SASRecConfig(num_items=20, hidden_size=16, max_history=5, dropout=0.3))
arguments = next_item_arguments(folder, max_epochs=6, batch_size=16, seed=0, data_seed=0, use_cpu=True)
data = [NextItemRows(splits.part(part)) for part in ("train", "validation")]
trainer = NextItemTrainer(model, arguments, *data, patience=20)
trainer.train(resume_from_checkpoint=True)
trainer.save_model(out)
"""


@pytest.mark.slow  # two processes import transformers
def test_killed_run_ends_like_an_unbroken_one(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "killed"

    def start() -> forked.Process:
        return forked.Process([script, folder, tmp_path / "killed-final"], stdout=subprocess.DEVNULL)

    killed = start()
    deadline = time.monotonic() + 300
    while not list(folder.glob("checkpoint-*/trainer_state.json")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed-final").exists()  # it was killed in the middle
    assert start().wait(timeout=300) == 0

    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "unbroken"), str(tmp_path / "unbroken-final")])
    runpy.run_path(str(script))
    torch.set_num_threads(threads)
    final = [load_file(tmp_path / f"{name}-final" / "model.safetensors") for name in ("unbroken", "killed")]
    for name, tensor in final[0].items():
        assert torch.equal(tensor, final[1][name]), name
