"""RecInterpreter: what a sequential recommender knows, in words; with its metrics, controls and a linear probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from llm_rec.interpreter.config import RecInterpreterConfig as RecInterpreterConfig
    from llm_rec.interpreter.controls import LinearProbe as LinearProbe
    from llm_rec.interpreter.evaluation import SYSTEMS as SYSTEMS
    from llm_rec.interpreter.evaluation import InterpreterEvaluation as InterpreterEvaluation
    from llm_rec.interpreter.evaluation import evaluate as evaluate
    from llm_rec.interpreter.interpreter import Interpretation as Interpretation
    from llm_rec.interpreter.interpreter import RecInterpreter as RecInterpreter

_NAMES = {
    "RecInterpreterConfig": "llm_rec.interpreter.config",
    "LinearProbe": "llm_rec.interpreter.controls",
    "SYSTEMS": "llm_rec.interpreter.evaluation",
    "InterpreterEvaluation": "llm_rec.interpreter.evaluation",
    "evaluate": "llm_rec.interpreter.evaluation",
    "Interpretation": "llm_rec.interpreter.interpreter",
    "RecInterpreter": "llm_rec.interpreter.interpreter",
}

__all__ = [
    "SYSTEMS",
    "Interpretation",
    "InterpreterEvaluation",
    "LinearProbe",
    "RecInterpreter",
    "RecInterpreterConfig",
    "evaluate",
]

__getattr__, __dir__ = attach(__name__, _NAMES)
