"""PNG plots of a trained DreamRec; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from predilect.figures import COLOURS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from predilect.data import SequenceSplits
    from seqrec_diffusion.recommender import DreamRec

_MARKERS = ("o", "s", "^", "D", "v", "P")  # what tells lines and users apart in black and white
_LINES = ("-", "--", "-.", ":")
_GREY = "#9a9ea6"


def plot_sweep(
    points: Sequence[Mapping[str, Any]], folder: Path, *, metric: str = "ndcg@10", part: str = "validation"
) -> list[Path]:
    """The metric against sampling steps (`steps.png`) and against guidance (`guidance.png`).

    Args:
        points: `sampling` (with `steps` and `guidance`) and `results` of each, as in the `sweep.json` of
            `predilect dreamrec evaluate`.
        folder: where the files go.
        metric: a key of the results.
        part: of which rows they are.

    Returns:
        The files written: one for each of the two that has several values.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    written = []
    for across, along in (("steps", "guidance"), ("guidance", "steps")):
        if len({point["sampling"][across] for point in points}) > 1:

            def draw(axes: Axes, across: str = across, along: str = along) -> None:
                _lines(axes, points, metric, across, along)
                axes.set_ylabel(f"{metric} on the {part} rows")

            written.append(save_figure(folder / f"{across}.png", draw))
    return written


def plot_map(
    recommender: DreamRec,
    splits: SequenceSplits,
    path: Path,
    *,
    part: str = "validation",
    users: int = 4,
    draws: int = 20,
    seed: int = 0,
) -> Path:
    """Items, oracle items and targets of a few users in one plane.

    The plane is spanned by the first two principal directions of these oracle items and targets (those of all items
    would tell little: the table has hardly any preferred directions). Where lengths do not count
    in the ranking (cosine similarity, items of one length) all vectors are brought to length 1 before. What is near in
    the plane need not be near in the other dimensions.

    Args:
        recommender: fitted, of the diffusion objective.
        splits: the data.
        path: of the PNG file.
        part: "validation" or "test"; one row of each user drawn from it.
        users: how many, 1..6.
        draws: oracle items of each, with the noise of the seeds that follow the recommender's.
        seed: of the draw of rows.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: a number out of range; an objective that generates nothing.
    """
    if not 1 <= users <= len(_MARKERS):
        raise ValueError(f"users must be in 1..{len(_MARKERS)}, for as many can be told apart (got {users})")
    if draws < 1:
        raise ValueError(f"draws must be at least 1 (got {draws})")
    rows = splits.part(part)
    rows = rows.select(_one_row_each(rows.user, users, seed))
    histories, targets = rows.histories(), rows.targets()
    oracles = oracle_draws(recommender, histories, draws)
    items = recommender.model.item_vectors.detach().float().cpu()
    if recommender.config.similarity == "cosine" or recommender.config.item_norm:
        items, oracles = (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (items, oracles))
    centre, directions, shares = principal_plane(torch.cat((oracles.flatten(0, 1), items[targets - 1])))
    flat_items, flat_oracles = ((vectors - centre) @ directions for vectors in (items, oracles))
    title = recommender.catalogue.title

    def draw(axes: Axes) -> None:
        axes.plot(*flat_items.T, ".", color=_GREY, markersize=3, alpha=0.5, zorder=1)
        for number, (history, target) in enumerate(zip(histories.tolist(), targets.tolist(), strict=True)):
            style: dict[str, Any] = {"color": COLOURS[number], "marker": _MARKERS[number], "linestyle": ""}
            axes.plot(*flat_oracles[:, number].T, **style, markersize=4, alpha=0.6, fillstyle="none", zorder=2)
            after = f"after {_short(title(history[-1]))}" if history[-1] else "after nothing"
            label = f"{_short(title(target))}\n{after}"
            place = flat_items[target - 1]
            axes.plot(*place[:, None], **style, markersize=10, markeredgecolor="black", label=label, zorder=3)
        axes.set_xlabel(f"first principal direction of oracle items and targets ({shares[0]:.0%} of their variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
        axes.set_title(
            f"{len(items):,} items (dots), {draws} oracle items of each history (hollow), what followed (filled)",
            loc="left",
            fontsize=9,
        )
        _legend(axes)

    return save_figure(path, draw, size=(9, 4.8))


def oracle_draws(recommender: DreamRec, histories: Tensor, draws: int) -> Tensor:
    """Oracle items of each history from the noise of consecutive seeds, (draws, B, d); changes no sampling."""
    before = recommender.config
    first = before.sampling_seed
    try:
        coordinates = [
            recommender.set_sampling(draws=1, sampling_seed=seed).oracle_embeddings(histories)
            for seed in range(first, first + draws)
        ]
    finally:
        recommender.config = before
    return torch.stack(coordinates)


def principal_plane(vectors: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """The mean of vectors (N, d), their first two principal directions (d, 2), and the shares of variance of these.

    Examples:
        >>> corners = torch.tensor([[3.0, 0.0, 7.0], [-3.0, 0.0, 7.0], [0.0, 1.0, 7.0], [0.0, -1.0, 7.0]])
        >>> centre, directions, shares = principal_plane(corners)
        >>> directions.abs().round().tolist(), [round(share, 2) for share in shares]
        ([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.9, 0.1])
    """
    centre = vectors.mean(0)
    centred = (vectors - centre).double()
    values, directions = torch.linalg.eigh(centred.T @ centred)
    total = float(values.sum()) or 1.0
    shares = [float(value) / total for value in values.flip(0)[:2]]
    return centre, directions.flip(1)[:, :2].to(vectors.dtype), shares


def _one_row_each(user: np.ndarray, users: int, seed: int) -> np.ndarray:
    """Numbers of the rows of so many different users, fewer where there are not so many; ascending."""
    order = np.random.default_rng(seed).permutation(len(user))
    _, first = np.unique(user[order], return_index=True)
    return np.sort(order[np.sort(first)[:users]])


def _lines(axes: Axes, points: Sequence[Mapping[str, Any]], metric: str, across: str, along: str) -> None:
    """One line for each value of `along`."""
    for number, value in enumerate(sorted({point["sampling"][along] for point in points})):
        line = sorted(
            (point["sampling"][across], point["results"][metric])
            for point in points
            if point["sampling"][along] == value
        )
        axes.plot(
            *zip(*line, strict=True),
            linestyle=_LINES[number % len(_LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=f"{along} {value:g}",
        )
    ticks = sorted({point["sampling"][across] for point in points})
    if across == "steps":
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("sampling steps" if across == "steps" else "guidance w")
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Beside the drawing, where it covers nothing."""
    legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), labelspacing=0.9)
    for text in legend.get_texts():
        text.set_parse_math(False)  # titles may hold dollars


def _short(title: str) -> str:
    return textwrap.shorten(title, 40, placeholder=" ...")
