"""Language models as recommenders: S-DPO, LLaRA, RecInterpreter, BIGRec's grounding."""

from __future__ import annotations

__version__ = "0.1.0"
