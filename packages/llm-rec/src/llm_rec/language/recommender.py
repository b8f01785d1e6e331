"""`LanguageRecommender`: text-only, fine-tuned, then aligned; `SoftmaxDPORecommender` is its preset for S-DPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from typing_extensions import TypeVar

from llm_rec.base import PARTS, TrainingRows
from llm_rec.candidates import CandidateRecommender
from llm_rec.language.config import LanguageRecommenderConfig, SoftmaxDPORecommenderConfig
from llm_rec.rows import in_batches
from predilect.modeling.answer_scores import score_catalogue
from predilect.modeling.generation import generate_titles
from predilect.recommender import RecommenderConfig
from predilect.tokenization import TitleTrie
from predilect.training import arithmetic, default_device, quiet, run_stage, stage_options, without_progress_bars
from predilect.training.language_model import base_model, load_language_model, save_language_model, with_lora
from pref_losses import PreferenceConfig, PreferenceTrainer

PREFERENCE = "preference"


LanguageT = TypeVar("LanguageT", bound=LanguageRecommenderConfig, default=LanguageRecommenderConfig)


class LanguageRecommender(CandidateRecommender[LanguageT]):
    """Reads titles and answers with one: supervised fine-tuning (SFT), then any objective of `pref_losses`.

    The first stage maximises the log-probability of the title that followed. The second prefers it to `num_negatives`
    of the other candidates, with the first stage's model as the reference; both train the same LoRA adapter. A row is
    `prompt, chosen title, K rejected titles`, and the prompt is computed once for all of them.

    Source: the two stages are those of S-DPO (Chen et al. 2024, arXiv 2406.09215) and, with `objective` left empty,
    DPO on the same data. Differences from the authors' code: BOS, spaces and the end of a prompt are the same in both
    stages and in ranking; negatives never depend on the target; prompts lose whole items, not tokens, where they are
    too long; titles are ranked by their log-probability instead of being looked for in generated text.

    Example::

        recommender = LanguageRecommender(preference_steps=100, num_negatives=3).fit(splits)
        recommender.recommend(["The Matrix", "Heat"], k=10)
    """

    name = "language"
    config_class: ClassVar[type[RecommenderConfig]] = LanguageRecommenderConfig

    @property
    def _task(self) -> str:
        return "open" if self.config.open_prompts else "candidates"

    def _new_model(self) -> tuple[Any, Any]:
        if self.config.start_from is not None:
            return self._continued(Path(self.config.start_from))
        model, tokenizer = base_model(self.config)
        return with_lora(model, self.config), tokenizer

    def _continued(self, folder: Path) -> tuple[Any, Any]:
        """The model of a saved recommender, to be trained on, on other rows than it has seen."""
        for name in ("model", PARTS):
            if not (folder / name).exists():
                raise FileNotFoundError(f"start_from is the folder of a saved recommender: {folder} has no {name}")
        self._read = TrainingRows(**json.loads((folder / PARTS).read_text(encoding="utf-8"))["training_rows"])
        model, tokenizer = load_language_model(folder / "model", self.config, trainable=True)
        return model.to(default_device()), tokenizer

    def _save_model(self, folder: Path) -> None:
        save_language_model(self.model, self.prompter.tokenizer, folder)

    def _load_model(self, folder: Path) -> tuple[Any, Any]:
        return load_language_model(folder, self.config)

    def _train(self, splits: Any, folder: Path) -> None:
        super()._train(splits, folder)
        config = self.config
        steps = self._steps(splits, PREFERENCE)
        if not steps:
            return
        if splits.train.weight is not None:
            raise ValueError(
                "preferences have no weights and the training rows have: set preference_steps=0, or take the weights "
                "away (dataclasses.replace(splits.train, weight=None))"
            )
        rows = self._rows(splits, steps, num_negatives=config.num_negatives)
        rows = in_batches(rows, config.batch_size, config.seed)
        names = {"prompt_ids": "prompt_ids", "answer_ids": "chosen_ids", "rejected_ids": "rejected_ids"}
        data = Dataset.from_list([{new: row[old] for old, new in names.items()} for row in rows])
        options = stage_options(
            config, folder / PREFERENCE, steps=steps, learning_rate=config.preference_learning_rate
        )
        options["gradient_checkpointing"] = options.pop("activation_checkpointing")
        with quiet(), without_progress_bars():
            trainer = PreferenceTrainer(
                self._model,
                args=PreferenceConfig(**options, max_length=config.max_length, **config.objective),
                train_dataset=data,
                processing_class=self.prompter.tokenizer,
            )
        run_stage(trainer, self.callbacks)
        if "ref" in getattr(self._model, "peft_config", ()):
            self._model.delete_adapter("ref")

    def _score(self, histories: Tensor) -> Tensor:
        if not self.config.open_prompts:
            return super()._score(histories)
        prompts = self._prompts(histories, None, [max(map(len, self._answers))] * len(histories))
        ids, pad = [p.ids for p in prompts], self.prompter.tokenizer.pad_token_id
        if self.config.full_ranking == "catalogue":
            with arithmetic(self.config.dtype):
                scores = score_catalogue(self.model, ids, self._answers, pad_token_id=pad)
            items = torch.arange(1, len(self.catalogue) + 1).expand(len(histories), -1)
            return self._injected(histories, items, scores.cpu())
        with arithmetic(self.config.dtype):
            lists = generate_titles(self.model, self._trie(), ids, num_beams=self.config.num_beams, pad_token_id=pad)
        width = max(map(len, lists))
        items = torch.tensor([[i for i, _ in ranked] + [0] * (width - len(ranked)) for ranked in lists])
        scores = torch.tensor([[s for _, s in ranked] + [0.0] * (width - len(ranked)) for ranked in lists])
        safe = self._injected(histories, items.clamp(min=1), scores)
        return self._above_the_rest(histories, items, safe)

    def _trie(self) -> TitleTrie:
        titles = [self.catalogue.title(i) for i in range(1, len(self.catalogue) + 1)]
        return TitleTrie.from_titles(titles, self.prompter.tokenizer, leading_space=not self.config.chat)


class SoftmaxDPORecommender(LanguageRecommender[SoftmaxDPORecommenderConfig]):
    """S-DPO (Chen et al. 2024, arXiv 2406.09215, equation 9): a title against K rejected ones at once.

    `loss = log(1 + sum_k exp(r_k - r_chosen))`, `r = beta * log(pi / ref)`, `beta` = 1 as in the paper.
    """

    name = "softmax-dpo"
    config_class = SoftmaxDPORecommenderConfig
