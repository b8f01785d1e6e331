"""Dr. DPO on flipped pairs: accuracy on clean test pairs, and whether its weights find the flipped ones.

    python -m benchmarks.claims.pref_losses_dr_dpo_flips [--quick] [--kept] [--output FOLDER] [--work FOLDER]

The AUC is that of the weights which Dr. DPO gave the pairs in training, against the flip mask. Label smoothing and
rDPO are told the true flip rate; without flips they are DPO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.claims._claims import Row, Study, flips, main
from benchmarks.claims._hh import HH


def weights_auc(trainer: Any, rows: list[Row]) -> dict[str, float]:
    """Chance that a clean pair has a larger weight than a flipped one, ties half."""
    flipped = np.array([row["flipped"] for row in rows])
    if trainer.args.reduction != "robust" or not flipped.any():
        return {}
    weights = np.array([trainer.example_weights[row["row"]] for row in rows])
    pairs = weights[~flipped][:, None] - weights[flipped][None, :]
    return {"AUC of the weights": float((pairs > 0).mean() + (pairs == 0).mean() / 2)}


FLIPPED = {"20 % flipped": 0.2, "40 % flipped": 0.4}


def smoothed(setting: str) -> dict[str, Any]:
    return {"label_smoothing": FLIPPED.get(setting, 0.0)}


def corrected(setting: str) -> dict[str, Any]:
    return {**smoothed(setting), "link": "flip_corrected"} if setting in FLIPPED else {}


BASELINES: dict[str, dict[str, Any] | Callable[[str], dict[str, Any]]] = {
    "DPO": {},
    "label smoothing": smoothed,
    "rDPO (robust)": corrected,
}
OURS = {f"Dr. DPO, beta' {prime:g}": {"reduction": "robust", "beta_prime": prime} for prime in (0.1, 0.3, 1.0)}
STUDY = Study(
    name="pref_losses_dr_dpo_flips",
    paper="Wu et al. 2024, Dr. DPO (arXiv 2407.07880)",
    data=HH,
    systems={**BASELINES, **OURS},
    settings={"no flips": flips(0.0), **{name: flips(share) for name, share in FLIPPED.items()}},
    claims={
        f"With flipped training pairs {ours} is more accurate on clean ones than DPO, label smoothing and rDPO.": [
            (ours, other, list(FLIPPED)) for other in BASELINES
        ]
        for ours in OURS
    },
    extra=weights_auc,
)

if __name__ == "__main__":
    main(STUDY)
