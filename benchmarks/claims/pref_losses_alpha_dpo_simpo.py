"""alpha-DPO against SimPO, with the paper's two ablations.

    python -m benchmarks.claims.pref_losses_alpha_dpo_simpo [--quick] [--kept] [--output FOLDER] [--work FOLDER]

beta, ratio and alpha are those of the paper's ablation table (Llama-3-8B-Instruct v0.2), in the code's convention.
"""

from __future__ import annotations

from benchmarks.claims._claims import Study, flips, main
from benchmarks.claims._hh import HH

SIMPO = {"score": "mean_logp", "beta": 10.0, "gamma_beta_ratio": 0.4}
ALPHA = {**SIMPO, "margin_alpha": 0.2}
OTHERS = {
    "SimPO": SIMPO,
    "alpha-DPO without stop-gradient": {**ALPHA, "margin_stop_gradient": False},
    "alpha-DPO without normalisation": {**ALPHA, "margin_normalise": False},
}
STUDY = Study(
    name="pref_losses_alpha_dpo_simpo",
    paper="Wu et al. 2024, alpha-DPO (arXiv 2410.10148)",
    data=HH,
    systems={"alpha-DPO": ALPHA, **OTHERS},
    settings={"no flips": flips(0.0)},
    claims={f"alpha-DPO is more accurate than {other}.": [("alpha-DPO", other, ["no flips"])] for other in OTHERS},
    seeds=10,
)

if __name__ == "__main__":
    main(STUDY)
