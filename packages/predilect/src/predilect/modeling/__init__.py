"""Sequential backbones with one interface, and language models: soft tokens, answers as log-probabilities, texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.modeling.answer_scores import score_candidates as score_candidates
    from predilect.modeling.answer_scores import score_catalogue as score_catalogue
    from predilect.modeling.caser import Caser as Caser
    from predilect.modeling.caser import CaserConfig as CaserConfig
    from predilect.modeling.causal_lm import load_causal_lm as load_causal_lm
    from predilect.modeling.generation import generate_text as generate_text
    from predilect.modeling.generation import generate_titles as generate_titles
    from predilect.modeling.gru4rec import GRU4Rec as GRU4Rec
    from predilect.modeling.gru4rec import GRU4RecConfig as GRU4RecConfig
    from predilect.modeling.nextitnet import NextItNet as NextItNet
    from predilect.modeling.nextitnet import NextItNetConfig as NextItNetConfig
    from predilect.modeling.packed import check_packable as check_packable
    from predilect.modeling.packed import completion_logps as completion_logps
    from predilect.modeling.packed import label_logps as label_logps
    from predilect.modeling.sasrec import SASRec as SASRec
    from predilect.modeling.sasrec import SASRecConfig as SASRecConfig
    from predilect.modeling.sequential import SequentialConfig as SequentialConfig
    from predilect.modeling.sequential import SequentialModel as SequentialModel
    from predilect.modeling.soft_token_lm import SoftTokenCausalLM as SoftTokenCausalLM

_HOMES = {
    "answer_scores": ("score_candidates", "score_catalogue"),
    "caser": ("Caser", "CaserConfig"),
    "causal_lm": ("load_causal_lm",),
    "generation": ("generate_text", "generate_titles"),
    "gru4rec": ("GRU4Rec", "GRU4RecConfig"),
    "nextitnet": ("NextItNet", "NextItNetConfig"),
    "packed": ("check_packable", "completion_logps", "label_logps"),
    "sasrec": ("SASRec", "SASRecConfig"),
    "sequential": ("SequentialConfig", "SequentialModel"),
    "soft_token_lm": ("SoftTokenCausalLM",),
}

__all__ = [
    "Caser",
    "CaserConfig",
    "GRU4Rec",
    "GRU4RecConfig",
    "NextItNet",
    "NextItNetConfig",
    "SASRec",
    "SASRecConfig",
    "SequentialConfig",
    "SequentialModel",
    "SoftTokenCausalLM",
    "check_packable",
    "completion_logps",
    "generate_text",
    "generate_titles",
    "label_logps",
    "load_causal_lm",
    "score_candidates",
    "score_catalogue",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"predilect.modeling.{home}" for home, names in _HOMES.items() for name in names}
)
