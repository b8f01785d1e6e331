"""Dr. DPO on flipped pairs: accuracy on clean test pairs, and whether its weights find the flipped ones.

    python -m benchmarks.claims.pref_losses_dr_dpo_flips [--quick] [--output FOLDER] [--work FOLDER]

The AUC is that of the weights which Dr. DPO gave the pairs in training, against the flip mask. Label smoothing and
rDPO are told a flip rate of 0.2 throughout.
"""

from __future__ import annotations

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
BASELINES: dict[str, dict[str, Any]] = {
    "DPO": {},
    "label smoothing": {"label_smoothing": 0.2},
    "rDPO (robust)": {"label_smoothing": 0.2, "link": "flip_corrected"},
}
STUDY = Study(
    name="pref_losses_dr_dpo_flips",
    paper="Wu et al. 2024, Dr. DPO (arXiv 2407.07880)",
    data=HH,
    systems={**BASELINES, "Dr. DPO": {"reduction": "robust", "beta_prime": 1.0}},
    baseline="DPO",
    settings={"no flips": flips(0.0), **{name: flips(share) for name, share in FLIPPED.items()}},
    tune_on=("20 % flipped", flips(0.2)),
    claims={
        "With flipped training pairs Dr. DPO is more accurate on clean ones than DPO, label smoothing and rDPO.": {
            f"Dr. DPO - {other}, flips": ("Dr. DPO", other, list(FLIPPED)) for other in BASELINES
        }
    },
    extra=weights_auc,
)

if __name__ == "__main__":
    main(STUDY)
