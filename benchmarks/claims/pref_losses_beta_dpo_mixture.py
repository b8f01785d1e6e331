"""beta-DPO on mixtures of pairs of different quality.

    python -m benchmarks.claims.pref_losses_beta_dpo_mixture [--quick] [--kept] [--output FOLDER] [--work FOLDER]

Easy pairs: the rejected answer is one to another prompt (large gap). Noisy pairs: flipped.
"""

from __future__ import annotations

from benchmarks.claims._claims import Row, Study, flips, main, use_rejected
from benchmarks.claims._hh import HH


def easy(row: Row, draw: float) -> Row:
    """40 % of the pairs get the rejected answer of another prompt."""
    return use_rejected(row, [1 if draw < 0.4 else 0]) | {"flipped": False}


STUDY = Study(
    name="pref_losses_beta_dpo_mixture",
    paper="Wu et al. 2024, beta-DPO (arXiv 2407.08639)",
    data=HH,
    systems={
        "DPO": {},
        "beta-DPO": {"beta_alpha": 0.6, "keep": 0.8},
    },
    settings={"no flips": flips(0.0), "40 % easy": easy, "40 % flipped": flips(0.4)},
    claims={
        "With easy or flipped pairs in training beta-DPO is more accurate on clean test pairs than DPO.": [
            ("beta-DPO", "DPO", ["40 % easy", "40 % flipped"])
        ]
    },
)

if __name__ == "__main__":
    main(STUDY)
