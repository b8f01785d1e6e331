"""Fingerprints change with contents, and with nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from predilect.runs import catalogue_fingerprint, data_fingerprint, differences, table_fingerprint, weights_fingerprint


def test_data_fingerprint_knows_every_part_of_the_splits(tiny_splits):
    def edited(rows, column):
        values = rows.with_format("arrow")[:][column].to_numpy().copy()
        values[3] += 1
        return rows.remove_columns(column).add_column(column, values.tolist())

    def with_sequences(name, values):
        sequences = dataclasses.replace(tiny_splits.sequences, **{name: values})
        return dataclasses.replace(tiny_splits, train=dataclasses.replace(tiny_splits.train, sequences=sequences))

    catalogue = tiny_splits.catalogue
    sequences = tiny_splits.sequences
    items = sequences.items.copy()
    items[[0, 1]] = items[[1, 0]]
    count = len(items)
    others = [
        with_sequences("items", items),
        with_sequences("timestamp", sequences.timestamp + (np.arange(count) == 7)),
        with_sequences("rating", sequences.rating + (np.arange(count) == 7)),
        with_sequences("event", np.zeros(count, dtype=np.int32)),
        dataclasses.replace(tiny_splits, train=tiny_splits.train.with_weights(np.ones(len(tiny_splits.train)))),
        dataclasses.replace(tiny_splits, train_interactions=edited(tiny_splits.train_interactions, "rating")),
        dataclasses.replace(tiny_splits, train_interactions=edited(tiny_splits.train_interactions, "timestamp")),
        dataclasses.replace(tiny_splits, train=tiny_splits.train.select(range(len(tiny_splits.train) - 1))),
        dataclasses.replace(tiny_splits, test=tiny_splits.test.select([1, 0, *range(2, len(tiny_splits.test))])),
        dataclasses.replace(tiny_splits, protocol={**tiny_splits.protocol, "max_history": 3}),
        dataclasses.replace(
            tiny_splits, catalogue=dataclasses.replace(catalogue, titles=("another", *catalogue.titles[1:]))
        ),
        tiny_splits.with_candidates(4, seed=0),
        tiny_splits.with_candidates(4, seed=1),
    ]
    digests = [data_fingerprint(splits) for splits in [tiny_splits, *others]]
    assert len(set(digests)) == len(digests)
    named = dataclasses.replace(tiny_splits, protocol={**tiny_splits.protocol, "data": "another name"})
    assert data_fingerprint(named) == digests[0]


def test_catalogue_fingerprint_knows_ids_titles_and_categories_and_not_the_counts(tiny_splits):
    catalogue = tiny_splits.catalogue
    kept = catalogue_fingerprint(catalogue)
    assert catalogue_fingerprint(dataclasses.replace(catalogue, popularity=())) == kept
    for name, first in (("raw_ids", "x"), ("titles", "x"), ("categories", ("x",))):
        changed = dataclasses.replace(catalogue, **{name: (first, *getattr(catalogue, name)[1:])})
        assert catalogue_fingerprint(changed) != kept


ROWS = {
    "ids": [[1, 2], [3], []],
    "text": ["ab", "c", None],
    "talk": [[{"role": "user", "content": "hi"}], [], [{"role": "a", "content": "b"}, {"role": "c", "content": "d"}]],
    "rating": [0.5, None, 2.0],
    "flag": [True, False, None],
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ids", [[1], [2, 3], []]),
        ("ids", [[1, 2], [3], [0]]),
        ("text", ["a", "bc", None]),
        ("text", ["ab", "c", ""]),
        ("talk", [[{"role": "use", "content": "rhi"}], *ROWS["talk"][1:]]),
        ("talk", [[], ROWS["talk"][0], ROWS["talk"][2]]),
        ("rating", [0.5, 0.0, 2.0]),
        ("flag", [True, False, False]),
    ],
)
def test_table_fingerprint_changes_with_any_value_and_any_border(column, value):
    one, two = Dataset.from_dict(ROWS), Dataset.from_dict({**ROWS, column: value})
    assert table_fingerprint(one, columns=ROWS) != table_fingerprint(two, columns=ROWS)
    others = [name for name in ROWS if name != column]
    assert table_fingerprint(one, columns=others) == table_fingerprint(two, columns=others)


def test_table_fingerprint_ignores_chunks_selections_and_the_width_of_integers():
    whole = Dataset.from_dict({"a": list(range(6)), "b": [[i] * i for i in range(6)]})
    kept = table_fingerprint(whole, columns=("a", "b"))
    table = whole.with_format("arrow")[:]
    chunks = Dataset(pa.concat_tables([table.slice(0, 2), table.slice(2)]))
    narrow = Dataset(table.cast(pa.schema([("a", pa.int32()), ("b", pa.list_(pa.int32()))])))
    selected = Dataset.from_dict({"a": [9, *range(6)], "b": [[9], *([i] * i for i in range(6))]}).select(range(1, 7))
    for same in (chunks, narrow, selected):
        assert table_fingerprint(same, columns=("a", "b")) == kept
    assert table_fingerprint(whole.select([1, 0, 2, 3, 4, 5]), columns=("a", "b")) != kept


def test_table_fingerprint_knows_which_part_a_row_is_in():
    rows = Dataset.from_dict({"a": [1, 2, 3]})
    parts = [(rows,), (rows, None), (rows.select([0]), rows.select([1, 2])), (rows.select([0, 1]), rows.select([2]))]
    assert len({table_fingerprint(*some, columns=("a",)) for some in parts}) == len(parts)


def test_weights_fingerprint_knows_bits_shapes_types_and_names():
    weights = {"a": torch.arange(6.0), "b": torch.tensor(1.0)}
    kept = weights_fingerprint(weights)
    assert weights_fingerprint({"b": weights["b"].clone(), "a": torch.arange(12.0)[:6]}) == kept
    others = [
        {**weights, "a": torch.arange(6.0).view(2, 3)},
        {**weights, "a": torch.arange(6.0).bfloat16()},
        {"a": weights["a"], "c": weights["b"]},
        {**weights, "a": torch.nextafter(weights["a"], torch.tensor(9.0))},
    ]
    assert len({kept, *map(weights_fingerprint, others)}) == 5


def test_differences_in_words():
    before = {"k": 5, "model": {"steps": 2, "rate": 0.1}, "gone": 1, "digest": "a" * 64}
    now = {"k": 5, "model": {"steps": 3, "rate": 0.1}, "new": np.int64(4).item(), "digest": "b" * 64}
    assert differences(before, now) == [
        "steps: 2 before, 3 now",
        "gone: 1 before, None now",
        "digest: aaaaaaaaaaaa... before, bbbbbbbbbbbb... now",
        "new: None before, 4 now",
    ]
    assert differences(before, before) == []
