r"""Re-ranking as a linear programme over all users at once: the most score under shares that groups are to have.

.. math::
    \max_x \sum_{u,c} s_{uc} x_{uc} \quad \text{with} \quad \sum_c x_{uc} = k, \; 0 \le x \le 1, \quad
    |\, \sum_{u,c} x_{uc} (m_{ig} - t_g m_i) \,| \le \epsilon \sum_{u,c} x_{uc} m_i \;\; \text{for every group } g

with :math:`i` the item of candidate c of user u, m_ig its membership, :math:`m_i = \sum_g m_{ig}`, t the target
proportions: every group's share of all places lies within :math:`\epsilon` of its target. The constraints are linear
and homogeneous, so that their multipliers give every item a price, the same for all users:

.. math:: \pi_i = \sum_g (\lambda_g - \mu_g)(m_{ig} - t_g m_i) - \epsilon \sum_g (\lambda_g + \mu_g) m_i

and the best lists under given prices are the top k of :math:`s - \pi`, user by user. `solve` is the exact optimum
(HiGHS); `item_prices` finds the multipliers on a sample of users, after which lists stream (`with_prices`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fair_rec.groups import ItemGroups


@dataclass(frozen=True)
class Programme:
    """What is to be re-ranked.

    Attributes:
        scores: (U, C) of the candidates, higher is better.
        items: (U, C) item ids of the candidates, none twice in a row; 0 fills a row with fewer, with a low score.
        groups: of the items.
        targets: (G,) proportions that sum to 1.
        k: length of the lists, at most C.
        tolerance: epsilon, at least 0: how far a share may be from its target.
    """

    scores: np.ndarray
    items: np.ndarray
    groups: ItemGroups
    targets: np.ndarray
    k: int
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.scores.shape != self.items.shape or self.scores.ndim != 2:
            raise ValueError(f"scores and items must both be (U, C) (got {self.scores.shape} and {self.items.shape})")
        if not 1 <= self.k <= self.scores.shape[1]:
            raise ValueError(f"k must be in 1..{self.scores.shape[1]}, the number of candidates (got {self.k})")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores must be finite")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0 (got {self.tolerance})")
        if self.targets.shape != (len(self.groups),) or abs(self.targets.sum() - 1) > 1e-6:
            raise ValueError(f"targets must be {len(self.groups)} proportions that sum to 1 (got {self.targets})")

    def constraints(self) -> np.ndarray:
        """(N + 1, 2 G): what each item adds to the constraints `<= 0`, upper ones first."""
        breadth = self.groups.breadth[:, None]
        gap = self.groups.membership - breadth * self.targets
        return np.concatenate([gap, -gap], axis=1) - self.tolerance * breadth


def solve(programme: Programme) -> tuple[np.ndarray, float]:
    """The exact optimum: x (U, C) in 0..1, and its total score.

    A vertex of the programme has at most as many fractional entries as constraints that bind: for many users the lists
    are whole but for a handful.

    Raises:
        ValueError: no lists satisfy the constraints: the candidates of all users together cannot reach the targets.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, identity, kron

    rows, width = programme.scores.shape
    shared = csr_array(programme.constraints()[programme.items.ravel()].T)
    per_user = csr_array(kron(identity(rows, format="csr"), np.ones((1, width))))
    found = linprog(
        -programme.scores.ravel(),
        A_ub=shared,
        b_ub=np.zeros(shared.shape[0]),
        A_eq=per_user,
        b_eq=np.full(rows, programme.k),
        bounds=(0, 1),
        method="highs",
    )
    if found.status == 2:
        raise ValueError(
            "no lists reach the targets with these candidates: raise tolerance, or give more candidates per user"
        )
    if not found.success:
        raise ValueError(f"the programme could not be solved: {found.message}")
    return found.x.reshape(rows, width), float(-found.fun)


def item_prices(programme: Programme, *, iterations: int = 200, gap: float = 1e-3) -> np.ndarray:
    r"""(N + 1,) the prices :math:`\pi` of the items.

    Minimises the dual, :math:`\sum_u` (sum of the k largest :math:`s_{uc} - \pi_i`), over multipliers of at least 0.
    It is convex and piecewise linear in as many multipliers as there are constraints, however many users there are,
    and one pass over the lists gives its value and a subgradient, what the chosen items add to the constraints:
    cutting planes (Kelley 1960, The Cutting-Plane Method for Solving Convex Programs), of which HiGHS finds the lowest
    point.

    Scores that tie, as those of counting methods do, are to be parted beforehand (`parted`): at the price where a
    whole group of equal items tips, no lists but mixtures have the right shares.

    Args:
        programme: a sample of the users is enough.
        iterations: at most.
        gap: relative distance to the lower bound at which it ends.
    """
    from scipy.optimize import linprog

    constraints = programme.constraints()
    size = constraints.shape[1]
    high = 2 * float(np.ptp(programme.scores)) or 1.0
    best_value, best = np.inf, np.zeros(size)
    now = best
    slopes, levels = [], []
    for _ in range(iterations):
        value, used = _dual(programme, constraints, now)
        if value < best_value:
            best_value, best = value, now
        slopes.append(np.r_[-used, -1.0])  # value - used (m - now) <= theta
        levels.append(-used @ now - value)
        found = linprog(
            np.r_[np.zeros(size), 1.0],
            A_ub=np.array(slopes),
            b_ub=np.array(levels),
            bounds=[(0, high)] * size + [(None, None)],
            method="highs",
        )
        if not found.success or best_value - found.fun <= gap * max(1.0, abs(best_value)):
            break
        now = 0.5 * (best + found.x[:size]) if len(slopes) < iterations // 2 else found.x[:size]
    prices: np.ndarray = constraints @ best
    return prices


def _dual(programme: Programme, constraints: np.ndarray, multipliers: np.ndarray) -> tuple[float, np.ndarray]:
    """The value of the dual, and what the lists chosen under these multipliers add to the constraints."""
    adjusted = programme.scores - (constraints @ multipliers)[programme.items]
    chosen = np.argpartition(-adjusted, programme.k - 1, axis=1)[:, : programme.k]
    items = np.take_along_axis(programme.items, chosen, axis=1)
    used = np.bincount(items.ravel(), minlength=len(constraints)) @ constraints
    return float(np.take_along_axis(adjusted, chosen, axis=1).sum()), used


def parted(scores: np.ndarray, items: np.ndarray, keys: np.ndarray, size: float) -> np.ndarray:
    """Scores (U, C) plus a number in 0..`size` that depends on the list's key (U,) and the item (U, C) alone."""
    prime = 2_147_483_647
    mixed = (keys[:, None] * 48_271 + items * 69_621 + 12_345) % prime
    mixed = mixed * 48_271 % prime
    broken: np.ndarray = scores + size * (mixed / prime)
    return broken
