from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seqrec_diffusion import DreamRec
from seqrec_diffusion.plots import oracle_draws, plot_map, plot_sweep, principal_plane

SWEEP = [
    {"sampling": {"steps": steps, "guidance": w}, "results": {"ndcg@10": w / steps, "mrr": w + steps}}
    for w in (0.0, 2.5)
    for steps in (20, 5, 100)
]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is written."""
    found, savefig = [], Figure.savefig

    def kept(self, *args, **kwargs):
        found.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return found


@pytest.fixture(scope="module")
def fitted(tiny_splits):
    return DreamRec(hidden_size=16, timesteps=50, schedule="exp", max_epochs=2, steps=5, batch_size=64).fit(
        tiny_splits
    )


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_a_sweep_is_drawn_both_ways(figures, tmp_path):
    written = plot_sweep(SWEEP, tmp_path / "new")
    assert [path.name for path in written] == ["steps.png", "guidance.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert len(list((tmp_path / "new").iterdir())) == 2  # nothing half written beside
    steps, guidance = map(lines, figures)
    assert list(steps) == ["guidance 0", "guidance 2.5"]
    np.testing.assert_allclose(steps["guidance 2.5"].get_xydata(), [[5, 0.5], [20, 0.125], [100, 0.025]])
    assert list(guidance) == ["steps 5", "steps 20", "steps 100"]
    np.testing.assert_allclose(guidance["steps 20"].get_xydata(), [[0, 0], [2.5, 0.125]])
    assert figures[0].axes[0].get_ylabel() == "ndcg@10 on the validation rows"


def test_only_what_varies_is_drawn(figures, tmp_path):
    assert [p.name for p in plot_sweep(SWEEP[:3], tmp_path, metric="mrr", part="test")] == ["steps.png"]
    np.testing.assert_allclose(lines(figures[0])["guidance 0"].get_xydata(), [[5, 5], [20, 20], [100, 100]])
    assert figures[0].axes[0].get_ylabel() == "mrr on the test rows"
    assert plot_sweep(SWEEP[:1], tmp_path) == []


def test_lines_differ_without_colour_and_the_legend_covers_nothing(figures, tmp_path):
    many = [
        {"sampling": {"steps": steps, "guidance": w}, "results": {"ndcg@10": 0.1 * w}}
        for w in range(12)
        for steps in (5, 10)
    ]
    plot_sweep(many, tmp_path)
    drawn = lines(figures[0]).values()
    assert len({(line.get_linestyle(), line.get_marker()) for line in drawn}) == len(drawn) == 12
    axes = figures[0].axes[0]
    legend, inside = axes.get_legend().get_window_extent(), axes.patch.get_window_extent()
    assert legend.x0 >= inside.x1
    assert legend.x1 <= figures[0].bbox.x1
    assert legend.y0 >= figures[0].bbox.y0


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_map_shows_items_oracle_items_and_targets(figures, fitted, tiny_splits, tmp_path, similarity, monkeypatch):
    fitted.set_sampling(similarity=similarity)
    titles = tuple(f"The ${i} Question$ (20{i:02d})" for i in range(1, 21))
    monkeypatch.setattr(DreamRec, "catalogue", dataclasses.replace(tiny_splits.catalogue, titles=titles))
    path = plot_map(fitted, tiny_splits, tmp_path / "map.png", users=3, draws=7, part="test")
    assert path.read_bytes().startswith(b"\x89PNG")
    items, *others = figures[0].axes[0].lines
    flat = items.get_xydata()
    assert flat.shape == (20, 2)
    rows = tiny_splits.test
    followed = {
        (titles[t - 1], f"after {titles[h[-1] - 1]}") for h, t in zip(rows.histories(), rows.target, strict=True)
    }
    for oracles, target in zip(others[::2], others[1::2], strict=True):
        assert oracles.get_xydata().shape == (7, 2)
        assert oracles.get_marker() == target.get_marker()
        told = target.get_label()
        assert tuple(told.split("\n")) in followed
        np.testing.assert_array_equal(target.get_xydata()[0], flat[titles.index(told.split("\n")[0])])
    assert len({line.get_marker() for line in others}) == len(others) / 2 == 3
    told = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert told == [line.get_label() for line in others[1::2]]
    assert not any(text.get_parse_math() for text in figures[0].axes[0].get_legend().get_texts())


def test_the_map_is_the_same_again_and_changes_no_sampling(fitted, tiny_splits, tmp_path):
    before = fitted.config
    one, two = (plot_map(fitted, tiny_splits, tmp_path / name, users=2, draws=3) for name in ("one.png", "two.png"))
    assert one.read_bytes() == two.read_bytes()
    assert fitted.config == before


def test_oracle_draws_are_those_of_the_seeds(fitted):
    histories = torch.tensor([[0, 3, 4], [5, 6, 7]])
    found = oracle_draws(fitted.set_sampling(sampling_seed=4, draws=2), histories, 3)
    assert found.shape == (3, 2, 16)
    assert fitted.config.draws == 2
    fitted.set_sampling(draws=1, sampling_seed=6)
    assert torch.equal(found[2], fitted.oracle_embeddings(histories))


def test_the_principal_plane_keeps_what_lies_in_a_plane():
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(30, 2, generator=generator) @ torch.randn(2, 9, generator=generator) + 3
    centre, directions, shares = principal_plane(inside)
    flat = (inside - centre) @ directions
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(inside, inside), atol=1e-2, rtol=1e-3)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > shares[1]
    assert principal_plane(torch.ones(3, 4))[2] == pytest.approx([0, 0])  # all one point


@pytest.mark.parametrize(("options", "message"), [({"users": 7}, r"1\.\.6.*got 7"), ({"draws": 0}, "got 0")])
def test_wrong_numbers_are_named(fitted, tiny_splits, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        plot_map(fitted, tiny_splits, tmp_path / "map.png", **options)
    assert not list(tmp_path.iterdir())
