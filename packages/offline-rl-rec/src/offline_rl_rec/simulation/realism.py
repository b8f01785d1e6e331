"""How much simulated sessions are like those of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import wasserstein_distance

from offline_rl_rec.sessions import RewardRule, Sessions
from offline_rl_rec.simulation.users import Users, UserSimulator
from predilect.data.rows import SequenceRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITIES = {
    "length": "events of a session",
    "reward": "sum of rewards of a session",
    "repeats": "share of a session's events whose item was in the history",
    "popularity": "log(1 + events of the item in the log), of each event",
}
_LONGEST = 10_000  # events of a simulated session; leaving ends them long before
_HALVINGS = 20


@dataclass(frozen=True)
class SessionSample:
    """Sessions as flat arrays, one place per event.

    Attributes:
        session: (E,) int64, 0..S-1, each at least once.
        item: (E,) int64.
        reward: (E,) float64.
        repeat: (E,) bool, whether the item was in the history that the user remembers.
    """

    session: np.ndarray
    item: np.ndarray
    reward: np.ndarray
    repeat: np.ndarray

    def values(self, quantity: str, counts: np.ndarray) -> np.ndarray:
        """What `QUANTITIES` describes, (S,) or (E,); `counts` (N + 1,) are the items' events in the log."""
        if quantity == "popularity":
            popularity: np.ndarray = np.log1p(counts[self.item])
            return popularity
        length = np.bincount(self.session).astype(np.float64)
        if quantity == "length":
            return length
        if quantity == "reward":
            return np.bincount(self.session, self.reward)
        share: np.ndarray = np.bincount(self.session, self.repeat) / length
        return share

    def where(self, sessions: np.ndarray) -> SessionSample:
        """The sessions of which `sessions` (S,) is true, numbered anew."""
        chosen = sessions[self.session]
        number = np.unique(self.session[chosen], return_inverse=True)[1]
        return SessionSample(number, self.item[chosen], self.reward[chosen], self.repeat[chosen])


def logged_sessions(rows: SequenceRows, max_history: int, rule: RewardRule | None = None) -> SessionSample:
    """The sessions of a part of the log: a user's rows in it.

    Raises:
        ValueError: see `RewardRule.is_purchase`.
    """
    rows = rows.select(np.lexsort((rows.position, rows.user)))
    histories = rows.histories().numpy()[:, -max_history:]
    return SessionSample(
        session=np.unique(rows.user, return_inverse=True)[1],
        item=rows.target,
        reward=Sessions.of(rows, rule).rewards(rows).astype(np.float64),
        repeat=(histories == rows.target[:, None]).any(axis=1),
    )


def simulated_sessions(simulator: UserSimulator, sessions: int = 1000, seed: int = 0) -> SessionSample:
    """Sessions in which nobody recommends: every user takes an item out of the whole catalogue at each step.

    A log does not say what was shown; this is the user model alone, without a recommender that favours some items.

    Raises:
        ValueError: no sessions.
    """
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1 (got {sessions})")
    users, rng = Users(simulator, sessions), np.random.default_rng(seed)
    users.begin(rng)
    active = np.ones(sessions, dtype=bool)
    found: list[tuple[np.ndarray, ...]] = []
    for _ in range(_LONGEST):
        before = users.histories
        step = users.browse(rng, active)
        repeat = (before == step.taken[:, None]).any(axis=1)
        found.append((np.flatnonzero(active), step.taken[active], step.reward[active], repeat[active]))
        active &= ~step.left
        if not active.any():
            break
    return SessionSample(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class Realism:
    """Simulated sessions beside logged ones.

    Attributes:
        logged: the log's sessions.
        simulated: name of a simulator -> its sessions.
        counts: (N + 1,) the items' events among `logged`.
        rows: a dict for each quantity with `quantity`, `distance` ("Wasserstein", in units of the quantity, or "total
            variation"), `logged` (its mean; none for the shares of items), `halves`, the mean distance between random
            halves of the logged sessions, and for each simulator `<name>` (the distance) and `<name>_mean`.
    """

    logged: SessionSample
    simulated: dict[str, SessionSample]
    counts: np.ndarray
    rows: list[dict[str, Any]]

    def plots(self, folder: Path) -> list[Path]:
        """Write `realism-<quantity>.png`: the distribution functions of log and simulators; needs matplotlib."""
        from predilect.figures import save_figure

        paths = []
        for quantity in QUANTITIES:

            def draw(axes: Axes, quantity: str = quantity) -> None:
                self._draw(axes, quantity)

            paths.append(save_figure(folder / f"realism-{quantity}.png", draw))
        return paths

    def _draw(self, axes: Axes, quantity: str) -> None:
        from predilect.figures import COLOURS

        samples = {"log": self.logged, **{f"{name} users": sample for name, sample in self.simulated.items()}}
        longest = 0.0
        for (name, sample), colour in zip(samples.items(), ("#444444", *COLOURS), strict=False):
            values = sample.values(quantity, self.counts)
            axes.ecdf(values, label=name, color=colour, linewidth=2.5 if name == "log" else 1.5)
            longest = max(longest, float(np.quantile(values, 0.99)))
        axes.set_xlim(0, longest * 1.05 or 1)  # the longest sessions would hide all others
        axes.set_xlabel(QUANTITIES[quantity])
        axes.set_ylabel("share at most as large")
        axes.legend(frameon=False)


def realism(
    simulators: Sequence[UserSimulator], rows: SequenceRows, *, sessions: int = 1000, seed: int = 0
) -> Realism:
    """Compare the sessions of simulated users with those of a part of the log.

    For length, reward, repeats and popularity the distance is Wasserstein's, between the distributions over sessions
    (popularity: over events); `items` is the total variation between the shares of the items among all events.
    Distances between random halves of the log tell how much of a distance is chance; a half has half the sessions, so
    that it is a little more than that.

    Args:
        simulators: fitted, of one catalogue and rule.
        rows: a part of the log; that of the fit, or one that tells how well it carries over.
        sessions: to simulate.
        seed: of simulation and halves.

    Raises:
        ValueError: no simulators; fewer than two sessions; see also `RewardRule.is_purchase`.
    """
    if not simulators:
        raise ValueError("there is no simulator to compare with the log")
    first = simulators[0]
    logged = logged_sessions(rows, first.max_history, first.rule)
    number = int(logged.session.max()) + 1
    if number < 2:
        raise ValueError(f"a comparison needs at least two sessions of the log (got {number})")
    counts = np.bincount(logged.item, minlength=first.num_items + 1)
    simulated = {s.name: simulated_sessions(s, sessions, seed) for s in simulators}
    distances = {name: _distances(logged, sample, counts) for name, sample in simulated.items()}
    rng, halves = np.random.default_rng(seed), []
    for _ in range(_HALVINGS):
        half = rng.permutation(number) % 2 == 0
        halves.append(_distances(logged.where(half), logged.where(~half), counts))
    table = []
    for quantity in (*QUANTITIES, "items"):
        row: dict[str, Any] = {"quantity": quantity}
        row["distance"] = "total variation" if quantity == "items" else "Wasserstein"
        if quantity != "items":
            row["logged"] = float(logged.values(quantity, counts).mean())
        row["halves"] = float(np.mean([half[quantity] for half in halves]))
        for name, sample in simulated.items():
            row[name] = distances[name][quantity]
            if quantity != "items":
                row[f"{name}_mean"] = float(sample.values(quantity, counts).mean())
        table.append(row)
    return Realism(logged, simulated, counts, table)


def _distances(a: SessionSample, b: SessionSample, counts: np.ndarray) -> dict[str, float]:
    found = {q: float(wasserstein_distance(a.values(q, counts), b.values(q, counts))) for q in QUANTITIES}
    shares = [np.bincount(s.item, minlength=len(counts)) / len(s.item) for s in (a, b)]
    return {**found, "items": float(np.abs(shares[0] - shares[1]).sum() / 2)}
