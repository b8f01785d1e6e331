from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llm_rec.interpreter.rows import RowStream, task_cases
from llm_rec.interpreter.vectors import Scale, VectorSource, load_scales, repeated, save_scales
from predilect.data import SequenceRows, UserSequences
from predilect.modeling import GRU4Rec
from predilect.modeling.gru4rec import GRU4RecConfig
from predilect.recommenders import SASRecRecommender
from predilect.training import AnswerCollator


@pytest.fixture(scope="module")
def source(sasrec: SASRecRecommender) -> VectorSource:
    return VectorSource(sasrec)


@pytest.fixture
def few(letter_splits: Any) -> Any:
    sequences = UserSequences(np.array([3, 4, 3, 4, 5, 6], dtype=np.int32), np.array([0, 2, 6]))
    return replace(letter_splits, train=SequenceRows.at(sequences, np.array([0, 0, 1]), np.array([0, 1, 3]), 5))


def state(source: VectorSource, *history: int) -> torch.Tensor:
    return source.states(torch.tensor([[0] * (5 - len(history)) + list(history)]))[0]


def test_rows_of_recovery_hold_state_and_history_and_leave_empty_ones_out(few: Any, source: VectorSource) -> None:
    cases = task_cases(few, "train", "recovery", source)
    assert cases.answers == [[3], [3, 4, 5]]
    torch.testing.assert_close(cases.vectors, torch.stack([state(source, 3), state(source, 3, 4, 5)])[:, None])
    assert (cases.users.tolist(), cases.positions.tolist()) == ([0, 1], [1, 3])


def test_rows_of_residual_hold_the_states_before_and_after(few: Any, source: VectorSource) -> None:
    cases = task_cases(few, "train", "residual", source)
    assert cases.answers == [[3], [4], [6]]
    torch.testing.assert_close(cases.vectors[2], torch.stack([state(source, 3, 4, 5), state(source, 3, 4, 5, 6)]))
    assert not cases.vectors[0, 0].any()  # nothing came before


def test_rows_of_items_are_all_in_training_and_the_targets_of_a_part(few: Any, source: VectorSource) -> None:
    cases = task_cases(few, "train", "item", source)
    assert cases.answers == [[i] for i in range(1, 21)]
    assert torch.equal(cases.vectors[:, 0], source.items[1:])
    targets = sorted(set(few.test.target.tolist()))
    assert [a[0] for a in task_cases(few, "test", "item", source).answers] == targets


def test_drawn_rows_are_the_same_for_a_seed(letter_splits: Any, source: VectorSource) -> None:
    found = [task_cases(letter_splits, "test", "residual", source, max_rows=7, seed=seed) for seed in (1, 1, 2)]
    assert found[0].answers == found[1].answers != found[2].answers
    assert len(found[0]) == 7


def test_a_history_is_cut_to_what_the_state_looks_at(letter_splits: Any) -> None:
    torch.manual_seed(0)
    short = VectorSource(GRU4Rec(GRU4RecConfig(num_items=20, hidden_size=8, max_history=2)))
    cases = task_cases(letter_splits, "test", "recovery", short)
    histories = letter_splits.test.to_dataset()["history"]
    assert cases.answers == [history[-2:] for history in histories]


def test_a_stream_mixes_its_tasks_and_takes_each_row_once_per_pass(few: Any, source: VectorSource) -> None:
    def taken(seed: int) -> list[tuple[str, tuple[int, ...]]]:
        stream = RowStream(few, source, ("recovery", "residual"), seed=seed)
        return [(row.task, tuple(row.answer)) for row in islice(stream, 200)]

    rows = taken(0)
    assert rows == taken(0) != taken(1)
    residual = [answer for task, answer in rows if task == "residual"]
    assert 70 < len(residual) < 130
    assert all(set(residual[i : i + 3]) == {(3,), (4,), (6,)} for i in range(0, len(residual) - 2, 3))


def test_a_task_without_rows_is_refused(few: Any, source: VectorSource) -> None:
    empty = replace(few, train=few.train.select([0]))
    with pytest.raises(ValueError, match="anything to train recovery on"):
        RowStream(empty, source, ("residual", "recovery"), seed=0)


def test_the_collator_hands_over_the_vectors_of_the_rows_in_their_order() -> None:
    def row(number: int, **vectors: list[float]) -> dict[str, Any]:
        own = {name: torch.tensor(values)[:, None] for name, values in vectors.items()}
        return {"prompt_ids": [5], "answer_ids": [6] * (number + 1), "row": number, "vectors": own}

    batch = AnswerCollator(0)([row(0, state=[1.0, 2.0]), row(1, item=[9.0]), row(2, state=[3.0])])
    assert {name: v.flatten().tolist() for name, v in batch["vectors"].items()} == {"item": [9.0], "state": [1, 2, 3]}


def test_one_linear_map_of_repeated_vectors_is_one_map_per_soft_token() -> None:
    torch.manual_seed(0)
    whole, vectors = nn.Linear(6, 4), torch.randn(5, 2)
    read = whole(repeated(vectors, 3))
    assert read.shape == (5, 3, 4)
    for token in range(3):
        own = vectors @ whole.weight[:, 2 * token : 2 * token + 2].T + whole.bias
        torch.testing.assert_close(read[:, token], own)
    assert repeated(vectors, 1) is vectors


def test_scales_by_hand_and_kept(tmp_path: Path) -> None:
    scale = Scale.fitted(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert scale(torch.tensor([[4.0, 6.0]])).tolist() == [[2.0, 1.0]]  # mean (2, 5), deviation (1, none)
    save_scales({"state": scale}, tmp_path / "scales.safetensors")
    loaded = load_scales(tmp_path / "scales.safetensors", width=2)
    assert torch.equal(loaded["state"].mean, scale.mean)
    assert torch.equal(loaded["state"].std, scale.std)
    with pytest.raises(ValueError, match="its width is not 3"):
        load_scales(tmp_path / "scales.safetensors", width=3)


def test_states_do_not_depend_on_batches_and_the_backbone_is_a_copy(sasrec: SASRecRecommender) -> None:
    source = VectorSource(sasrec.model.train())
    histories = torch.tensor([[0, 0, 0, 1, 2], [3, 4, 5, 6, 7], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(source.states(histories), source.states(histories, batch_size=1))
    assert not source.states(histories)[2].any()
    assert source.states(histories[:0]).shape == (0, 16)
    assert sasrec.model.training
    assert all(p.requires_grad for p in sasrec.model.parameters())
    sasrec.model.eval()


def test_any_sequential_model_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = VectorSource(GRU4Rec(GRU4RecConfig(num_items=6, hidden_size=8, max_history=4)))
    source.save(tmp_path / "model")
    loaded = VectorSource.load(tmp_path / "model")
    assert loaded.fingerprint() == source.fingerprint()
    assert loaded.max_history == 4
    histories = torch.tensor([[0, 1, 2, 3]])
    assert torch.equal(loaded.states(histories), source.states(histories))
    table = VectorSource(torch.from_numpy(np.ones((3, 2), dtype=np.float32)))
    table.save(tmp_path / "table")
    assert torch.equal(VectorSource.load(tmp_path / "table").items, table.items)
    with pytest.raises(ValueError, match="has no states of sequences"):
        table.states(histories)


def test_backbones_that_do_not_belong_here_are_refused(letter_splits: Any, sasrec: SASRecRecommender) -> None:
    other = replace(letter_splits.catalogue, raw_ids=tuple(f"x{i}" for i in range(20)))
    with pytest.raises(ValueError, match="another catalogue"):
        VectorSource.of(sasrec, other)
    with pytest.raises(ValueError, match="has 2 items, the catalogue 20"):
        VectorSource.of(torch.ones(3, 4), letter_splits.catalogue)
    for table in (torch.ones(3), torch.tensor([[0.0], [float("nan")]])):
        with pytest.raises(ValueError, match="must be finite and"):
            VectorSource(table)
