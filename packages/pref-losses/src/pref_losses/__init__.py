"""alpha-DPO, beta-DPO, Dr. DPO and Softmax-DPO: four parts of one loss, as functions and on TRL's trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from pref_losses.config import AlphaDPOConfig as AlphaDPOConfig
    from pref_losses.config import BetaDPOConfig as BetaDPOConfig
    from pref_losses.config import DrDPOConfig as DrDPOConfig
    from pref_losses.config import PreferenceConfig as PreferenceConfig
    from pref_losses.config import SoftmaxDPOConfig as SoftmaxDPOConfig
    from pref_losses.functional import LossOutput as LossOutput
    from pref_losses.functional import Moments as Moments
    from pref_losses.functional import alpha_dpo_loss as alpha_dpo_loss
    from pref_losses.functional import beta_dpo_loss as beta_dpo_loss
    from pref_losses.functional import dr_dpo_loss as dr_dpo_loss
    from pref_losses.functional import softmax_dpo_loss as softmax_dpo_loss
    from pref_losses.loading import load_preferences as load_preferences
    from pref_losses.objective import Objective as Objective
    from pref_losses.trainer import AlphaDPOTrainer as AlphaDPOTrainer
    from pref_losses.trainer import BetaDPOTrainer as BetaDPOTrainer
    from pref_losses.trainer import DrDPOTrainer as DrDPOTrainer
    from pref_losses.trainer import PreferenceTrainer as PreferenceTrainer
    from pref_losses.trainer import SoftmaxDPOTrainer as SoftmaxDPOTrainer

__version__ = "0.1.0"

_HOMES = {
    "config": ("AlphaDPOConfig", "BetaDPOConfig", "DrDPOConfig", "PreferenceConfig", "SoftmaxDPOConfig"),
    "functional": (
        "LossOutput",
        "Moments",
        "alpha_dpo_loss",
        "beta_dpo_loss",
        "dr_dpo_loss",
        "softmax_dpo_loss",
    ),
    "loading": ("load_preferences",),
    "objective": ("Objective",),
    "trainer": ("AlphaDPOTrainer", "BetaDPOTrainer", "DrDPOTrainer", "PreferenceTrainer", "SoftmaxDPOTrainer"),
}

__all__ = [
    "AlphaDPOConfig",
    "AlphaDPOTrainer",
    "BetaDPOConfig",
    "BetaDPOTrainer",
    "DrDPOConfig",
    "DrDPOTrainer",
    "LossOutput",
    "Moments",
    "Objective",
    "PreferenceConfig",
    "PreferenceTrainer",
    "SoftmaxDPOConfig",
    "SoftmaxDPOTrainer",
    "__version__",
    "alpha_dpo_loss",
    "beta_dpo_loss",
    "dr_dpo_loss",
    "load_preferences",
    "softmax_dpo_loss",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"pref_losses.{home}" for home, names in _HOMES.items() for name in names}
)
