"""Sequential backbones with one interface and their training, and language models that read soft tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.modeling.caser import Caser as Caser
    from predilect.modeling.caser import CaserConfig as CaserConfig
    from predilect.modeling.causal_lm import load_causal_lm as load_causal_lm
    from predilect.modeling.gru4rec import GRU4Rec as GRU4Rec
    from predilect.modeling.gru4rec import GRU4RecConfig as GRU4RecConfig
    from predilect.modeling.nextitnet import NextItNet as NextItNet
    from predilect.modeling.nextitnet import NextItNetConfig as NextItNetConfig
    from predilect.modeling.sasrec import SASRec as SASRec
    from predilect.modeling.sasrec import SASRecConfig as SASRecConfig
    from predilect.modeling.sequential import SequentialConfig as SequentialConfig
    from predilect.modeling.sequential import SequentialModel as SequentialModel
    from predilect.modeling.soft_token_lm import SoftTokenCausalLM as SoftTokenCausalLM

_NAMES = {
    "Caser": "predilect.modeling.caser",
    "CaserConfig": "predilect.modeling.caser",
    "GRU4Rec": "predilect.modeling.gru4rec",
    "GRU4RecConfig": "predilect.modeling.gru4rec",
    "NextItNet": "predilect.modeling.nextitnet",
    "NextItNetConfig": "predilect.modeling.nextitnet",
    "SASRec": "predilect.modeling.sasrec",
    "SASRecConfig": "predilect.modeling.sasrec",
    "SequentialConfig": "predilect.modeling.sequential",
    "SequentialModel": "predilect.modeling.sequential",
    "SoftTokenCausalLM": "predilect.modeling.soft_token_lm",
    "load_causal_lm": "predilect.modeling.causal_lm",
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
    "load_causal_lm",
]

__getattr__, __dir__ = attach(__name__, _NAMES)
