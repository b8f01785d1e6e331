"""`PromptedRecommender`: what all language-model recommenders share, from the retriever to the saved folder."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import set_seed
from typing_extensions import TypeVar

from llm_rec.config import PromptedConfig
from llm_rec.prompting import Prompt, Prompter
from llm_rec.rows import encoded_rows, in_batches, training_examples
from predilect.data.splits import SequenceSplits
from predilect.method import HUB_ID, METHOD_FILE
from predilect.modeling.causal_lm import SMOLLM2, smollm2_missing
from predilect.modeling.generation import generate_text
from predilect.recommender import Recommender, RecommenderConfig, recommender_class
from predilect.tokenization import PromptSet
from predilect.training import (
    AnswerCollator,
    AnswerRows,
    AnswerTrainer,
    answer_arguments,
    arithmetic,
    default_device,
    run_stage,
    stage_options,
)

SFT = "sft"
PARTS = "llm_rec.json"
_NO_TITLES = "reads titles, and none of the {} items has one"


class TrainingRows(NamedTuple):
    """Which training rows a model has seen: the first `rows` in the order of `seed`."""

    seed: int = 0
    rows: int = 0


PromptedT = TypeVar("PromptedT", bound=PromptedConfig, default=Any)


class PromptedRecommender(Recommender[PromptedT]):
    """A retriever, a language model, and prompts about the items of a catalogue.

    `fit` fits the retriever, fine-tunes the language model on the titles that followed, and lets the subclass fit what
    its ranking needs on validation rows. A subclass builds and keeps the model, and ranks.
    """

    config_class: ClassVar[type[RecommenderConfig]] = PromptedConfig
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"
    presets: ClassVar[str | None] = "llm_rec.presets"

    def __init__(self, config: PromptedT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._model: Any = None
        self._retriever: Recommender | None = None
        self._prompter: Prompter | None = None
        self._answers: list[list[int]] = []
        self._read = TrainingRows()

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The fine-tuned language model, in evaluation mode."""
        return self._fitted(self._model)

    @property
    def prompter(self) -> Prompter:
        """Writes the prompts."""
        return self._fitted(self._prompter)

    @property
    def retriever(self) -> Recommender:
        """Proposes shortlists."""
        return self._fitted(self._retriever)

    @property
    def max_test_rows(self) -> int | None:  # type: ignore[override]
        """What a leaderboard may take of these models' time."""
        return self.config.test_rows

    @property
    def num_parameters(self) -> int:
        """Of the language model with all its parts, and of the retriever."""
        own: int = sum(p.numel() for p in self.model.parameters())
        return own + self.retriever.num_parameters

    @abstractmethod
    def _new_model(self) -> tuple[Any, Any]:
        """The model to be trained and its tokenizer; the retriever and the catalogue are there already."""

    @abstractmethod
    def _save_model(self, folder: Path) -> None:
        """Write the model and its tokenizer."""

    @abstractmethod
    def _load_model(self, folder: Path) -> tuple[Any, Any]:
        """What `_save_model` wrote; refuses what does not fit."""

    @property
    def _mark(self) -> str:
        """What a prompt writes behind every title."""
        return ""

    @property
    def _task(self) -> str:
        """Of the prompt set: "candidates" or "open"."""
        return "candidates"

    def _training_candidates(self, splits: SequenceSplits) -> dict[str, Any]:
        """`size` and `negatives` of the candidates of a training row."""
        return {"size": 0, "negatives": "auto"}

    def _fit_ranking(self, splits: SequenceSplits) -> None:
        """What is fitted on validation rows, after training."""

    def _tables(self) -> Mapping[str, Tensor] | None:
        """Name of a soft token -> one vector per item id."""
        return None

    def unsuited(self, splits: SequenceSplits) -> str | None:
        if not splits.catalogue.has_titles:
            return f"it {_NO_TITLES.format(splits.num_items)}"
        return smollm2_missing() if self.config.model == SMOLLM2 else None

    # --- fitting ----------------------------------------------------------------------------------------------

    def _require(self, data: SequenceSplits) -> None:
        if not data.catalogue.has_titles:
            raise ValueError(f"{self.name} {_NO_TITLES.format(data.num_items)}")

    def require_ready(self) -> None:
        saved = self.config.retriever_folder
        if saved is not None and not HUB_ID.fullmatch(saved) and not (Path(saved) / METHOD_FILE).is_file():
            raise FileNotFoundError(
                f"retriever_folder {saved} holds no saved recommender: give the output folder of `predilect train`"
            )

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        """Fit the retriever, fine-tune on `data.train`, fit the ranking on `data.validation`.

        Raises:
            ValueError: a prompt that does not fit `max_length`.
        """
        self._retriever = self._fit_retriever(data, folder / "retriever")
        set_seed(self.config.seed)
        self._read = TrainingRows(self.config.seed)
        self._model, tokenizer = self._new_model()
        self._prepare(tokenizer)
        self._train(data, folder)
        self._model.eval()
        self._fit_ranking(data)

    def _fit_retriever(self, splits: SequenceSplits, folder: Path) -> Recommender:
        if (saved := self.config.retriever_folder) is not None:
            loaded = Recommender.from_pretrained(saved)
            if loaded.catalogue.raw_ids != splits.catalogue.raw_ids:
                raise ValueError(f"the retriever in {saved} was fitted on another catalogue: fit it on these data")
            return loaded
        kind = recommender_class(self.config.retriever)
        retriever = kind(kind.config_class(seed=self.config.seed))
        return retriever.fit(splits, output_dir=folder, resume=True)

    def _prepare(self, tokenizer: Any) -> None:
        self._prompter = Prompter(
            self.catalogue,
            tokenizer,
            PromptSet.for_domain(self.config.domain, task=self._task),
            max_length=self.config.max_length,
            chat=self.config.chat,
            template=self.config.template,
            mark=self._mark,
            seed=self.config.seed,
        )
        self._answers = self._prompter.answers()

    def _train(self, splits: SequenceSplits, folder: Path) -> None:
        """All stages."""
        steps = self._steps(splits, SFT)
        if not steps:
            return
        rows = in_batches(self._rows(splits, steps), self.config.batch_size, self.config.seed)
        options = stage_options(self.config, folder / SFT, steps=steps)
        run_stage(self._answer_trainer(rows, options), self.callbacks)

    def _steps(self, splits: SequenceSplits, stage: str) -> int:
        """Optimizer steps of a stage."""
        steps: int = getattr(self.config, f"{stage}_steps")
        epochs: float | None = getattr(self.config, f"{stage}_epochs")
        return steps if epochs is None else math.ceil(epochs * len(splits.train) / self.config.batch_size)

    def _answer_trainer(self, rows: list[dict[str, Any]], options: dict[str, Any]) -> AnswerTrainer:
        collator = AnswerCollator(self.prompter.tokenizer.pad_token_id, self._tables())
        return AnswerTrainer(
            self._model, answer_arguments(**options), data_collator=collator, train_dataset=AnswerRows(rows)
        )

    def _rows(self, splits: SequenceSplits, steps: int, **options: Any) -> list[dict[str, Any]]:
        """The rows of the next stage: those after all that this model was trained on before."""
        count, before = steps * self.config.batch_size, self._read
        examples = training_examples(
            splits,
            count,
            **self._training_candidates(splits),
            retriever=self.retriever,
            seed=before.seed,
            skip=before.rows,
        )
        self._read = before._replace(rows=before.rows + count)
        return list(encoded_rows(self.prompter, self._answers, examples, seed=self.config.seed, **options))

    @torch.inference_mode()
    def generate(
        self, histories: Tensor, candidates: Tensor | None = None, *, max_new_tokens: int | None = None
    ) -> list[str]:
        """What the language model writes by itself after each prompt, greedily; up to the first line break.

        Args:
            histories: (B, L) item ids, padded with 0 on the left.
            candidates: (B, C) item ids that the prompts name, if they name any.
            max_new_tokens: longest text; None: as long as the catalogue's longest title, so that none is cut.
        """
        longest = max_new_tokens or max(map(len, self._answers))
        prompts = self._prompts(histories, candidates, [longest] * len(histories))
        with arithmetic(self.config.dtype):
            return generate_text(
                self.model,
                self.prompter.tokenizer,
                [p.ids for p in prompts],
                max_new_tokens=longest,
                vectors=self._vectors(prompts),
                max_tokens=self.config.max_tokens,
            )

    def _prompts(self, histories: Tensor, candidates: Tensor | None, reserves: Sequence[int]) -> list[Prompt]:
        named = [[]] * len(histories) if candidates is None else candidates.tolist()
        return [
            self.prompter.encode(history, some, reserve=reserve)
            for history, some, reserve in zip(histories.tolist(), named, reserves, strict=True)
        ]

    def _vectors(self, prompts: Sequence[Prompt]) -> dict[str, list[Tensor]] | None:
        """For each soft token the vectors of each prompt."""
        tables = self._tables()
        if not tables:
            return None
        return {
            name: [table[torch.tensor(p.item_ids, dtype=torch.int64)] for p in prompts]
            for name, table in tables.items()
        }

    # --- folders ----------------------------------------------------------------------------------------------

    def _save(self, folder: Path) -> None:
        self.retriever.save_pretrained(folder / "retriever")
        self.prompter.save(folder)
        self._save_model(folder / "model")
        parts = {**self._parts(folder), "training_rows": self._read._asdict()}
        (folder / PARTS).write_text(json.dumps(parts, indent=2))

    def _load(self, folder: Path) -> None:
        for name in (PARTS, "prompts.json", "retriever", "model"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"no {name} in {folder}: it is incomplete, save the recommender again")
        self._retriever = Recommender.from_pretrained(folder / "retriever")
        if self._retriever.catalogue.raw_ids != self.catalogue.raw_ids:
            raise ValueError(f"the retriever in {folder} knows another catalogue than the recommender")
        self._model, tokenizer = self._load_model(folder / "model")
        self._model.to(default_device()).eval()
        self._prepare(tokenizer)
        parts = json.loads((folder / PARTS).read_text())
        self._read = TrainingRows(**parts["training_rows"])
        self._take_parts(parts, folder)

    def _parts(self, folder: Path) -> dict[str, Any]:
        """What else is to be kept, as JSON; the other parts are in `folder` already."""
        return {}

    def _take_parts(self, parts: Mapping[str, Any], folder: Path) -> None:
        """Restore what `_parts` gave."""
