"""`RecInterpreter`: a language model reads the state of a sequential recommender and says what it holds."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from transformers import set_seed

from llm_rec.interpreter.config import RecInterpreterConfig
from llm_rec.interpreter.rows import Row, RowStream
from llm_rec.interpreter.tasks import TASKS, Task
from llm_rec.interpreter.titles import TitleList
from llm_rec.interpreter.vectors import Backbone, Scale, VectorSource, load_scales, repeated, save_scales
from llm_rec.rows import in_batches
from predilect.data.splits import SequenceSplits
from predilect.method import CatalogueMethod
from predilect.modeling import SoftTokenCausalLM
from predilect.modeling.generation import generate_text
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import SequentialRecommender
from predilect.runs import catalogue_fingerprint, read_json, write_json
from predilect.tokenization import PromptSet, PromptTemplate, SoftTokens, encode_answers
from predilect.training import (
    AnswerCollator,
    AnswerRows,
    AnswerTrainer,
    answer_arguments,
    arithmetic,
    run_stage,
    stage_options,
)
from predilect.training.language_model import base_model

ADAPTER = "adapter"
_PARTS, _SCALES = "interpreter.json", "scales.safetensors"
_ROWS_AT_ONCE = 1 << 14


class Interpretation(NamedTuple):
    """What a language model says of a history's state.

    Attributes:
        text: as generated.
        items: ids of the items that it names, in its order, once per mention.
        recovered: those of them that are in the history, once each.
        invented: those that are not, once each.
    """

    text: str
    items: list[int]
    recovered: list[int]
    invented: list[int]


class RecInterpreter(CatalogueMethod[RecInterpreterConfig]):
    """A frozen language model that reads vectors of a frozen sequential recommender through a trained adapter.

    `z = W((h - mean) / std)` takes the place of a soft token in a prompt, where `h` is a sequence state (or an item's
    embedding) and `W` the adapter. It alone is trained, on the negative log-likelihood of answers:

    - recovery: from the state of a history, all its titles, oldest first;
    - residual: from the states before and after one more item, that item's title;
    - item: from an item's embedding, its title. Any vector of that space can then be read, such as those that a
      diffusion model imagines. The backbone may be a plain table of item vectors where only this task is trained.

    Source: Yang et al. 2023, RecInterpreter (arXiv 2310.20487), whose residual prompt is not public: its wording is
    ours. Not as in the authors' code: no answer is ever truncated (there 32 tokens, so that the later titles of a list
    were never trained on); the state is that after the last item (there a learned mean over padded positions);
    vectors are standardised; all that was trained is saved.

    Attributes:
        dropped: task -> number of training rows that `fit` left out because they do not fit `max_length`.

    Examples:
        >>> def explain(splits, sasrec):
        ...     interpreter = RecInterpreter(steps=1000).fit(splits, backbone=sasrec)
        ...     return interpreter.interpret(["Heat", "The Matrix"]).text
    """

    name = "rec-interpreter"
    presets: ClassVar[str | None] = "llm_rec.presets"
    config_class: ClassVar[type[RecInterpreterConfig]] = RecInterpreterConfig

    def __init__(self, config: RecInterpreterConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.dropped: dict[str, int] = {}
        self._model: Any = None
        self._source: VectorSource | None = None
        self._titles: TitleList | None = None

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The `SoftTokenCausalLM`, in evaluation mode."""
        return self._fitted(self._model)

    @property
    def source(self) -> VectorSource:
        """The frozen backbone: `source.states(histories)`, `source.items`."""
        return self._fitted(self._source)

    @property
    def titles(self) -> TitleList:
        """Reads texts as items."""
        return self._fitted(self._titles)

    @property
    def num_parameters(self) -> int:
        """Of the adapter."""
        return sum(p.numel() for p in self.model.projectors.parameters())

    def task(self, name: str) -> Task:
        """A trained task.

        Raises:
            ValueError: it was not trained.
        """
        if name not in self.config.tasks:
            raise ValueError(
                f"the task {name!r} was not trained, only {', '.join(self.config.tasks)}: add it to tasks"
            )
        return TASKS[name]

    # --- fitting ----------------------------------------------------------------------------------------------

    def fit(
        self,
        data: SequenceSplits,
        *,
        backbone: Backbone | None = None,
        output_dir: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Train the adapter on `data.train`.

        Args:
            data: the splits.
            backbone: a fitted `SequentialRecommender`, its model, or item vectors (N + 1, d); it is copied and stays
                as it is. None: the one of the config, loaded or fitted here.
            output_dir: as for `Method.fit`, like `resume` and `overwrite`.
            resume: go on with the same run.
            overwrite: remove the run that is there.

        Raises:
            ValueError: as `Method.fit`, and a catalogue without titles, a backbone of another catalogue or without
                states where a task needs them, or a task most of whose rows do not fit `max_length`.
        """
        if backbone is not None and self.config.backbone_folder is not None:
            raise ValueError("pass backbone, or name a backbone_folder in the config, not both")
        self._require(data)
        self._source = None if backbone is None else VectorSource.of(backbone, data.catalogue)
        return super().fit(data, output_dir=output_dir, resume=resume, overwrite=overwrite)

    def _require(self, data: SequenceSplits) -> None:
        if not data.catalogue.has_titles:
            raise ValueError(f"{self.name} says titles, and none of the {data.num_items} items has one")

    def _run(self, data: SequenceSplits) -> dict[str, Any]:
        return {**super()._run(data), "backbone": self._source and self._source.fingerprint()}

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        self._source = self._source or self._named_backbone(data, folder / "backbone")
        set_seed(self.config.seed)
        self._prepare(self._new_model(), {name: TASKS[name].prompts(self.config.domain) for name in self.config.tasks})
        stream = RowStream(data, self.source, self.config.tasks, seed=self.config.seed)
        self._scales = {space: Scale.fitted(stream.vectors(space)) for space in self._spaces}
        self._recovery_tokens = self._longest_list(data)
        if self.config.steps:
            self._train(stream, folder / ADAPTER)
        self._model.eval()

    def _named_backbone(self, splits: SequenceSplits, folder: Path) -> VectorSource:
        if (saved := self.config.backbone_folder) is not None:
            found = Recommender.from_pretrained(saved)
        else:
            kind = recommender_class(self.config.backbone)
            if not issubclass(kind, SequentialRecommender):
                raise ValueError(f"{self.config.backbone} has no states to read: use sasrec, gru4rec or caser")
            found = kind(kind.config_class(seed=self.config.seed)).fit(splits, output_dir=folder, resume=True)
        if not isinstance(found, SequentialRecommender):
            raise ValueError(
                f"{saved} holds a {found.name}, which has no states to read: use sasrec, gru4rec or caser"
            )
        return VectorSource.of(found, splits.catalogue)

    @property
    def _spaces(self) -> list[str]:
        return sorted({TASKS[name].space for name in self.config.tasks})

    def _new_model(self) -> Any:
        config = self.config
        lm, tokenizer = base_model(self.config)
        return SoftTokenCausalLM(
            lm,
            tokenizer,
            SoftTokens(dict.fromkeys(self._spaces, config.num_tokens)),
            input_sizes=dict.fromkeys(self._spaces, config.num_tokens * self.source.width),
            projector=config.projector,
            tuning="frozen",
            seed=config.seed,
        )

    def _prepare(self, model: Any, prompts: Mapping[str, PromptSet]) -> None:
        """What follows from model, prompts and catalogue."""
        self._model, self._prompts = model, dict(prompts)
        self._titles = TitleList(self.catalogue)
        self._title_tokens = torch.tensor([0, *map(len, self._encode_answers(self.titles.titles))])
        self._prompt_ids: dict[tuple[str, PromptTemplate], list[int]] = {}

    def _encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        return encode_answers(self._model.tokenizer, texts, leading_space=not self.config.chat)

    def _longest_list(self, splits: SequenceSplits) -> int:
        """Tokens of the longest list of titles among the training rows, a token per separator and EOS."""
        rows = splits.train
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        parts = (rows.histories(slice(start, start + _ROWS_AT_ONCE)) for start in starts)
        return max(int(self._title_tokens[part].sum(dim=1).max()) for part in parts)

    def _train(self, stream: RowStream, folder: Path) -> None:
        """Batches hold rows of similar length, and so mostly of one task, in random order: the loss is a mean over
        tokens, in which lists of titles would outweigh the single ones beside them.
        """
        config = self.config
        rows = in_batches(self._training_rows(stream), config.batch_size, config.seed)
        options = stage_options(config, folder, steps=config.steps)
        trainer = AnswerTrainer(
            self._model,
            answer_arguments(**options),
            data_collator=AnswerCollator(self._model.tokenizer.pad_token_id),
            train_dataset=AnswerRows(rows),
        )
        run_stage(trainer, self.callbacks)

    def _training_rows(self, stream: RowStream) -> list[dict[str, Any]]:
        """As many rows as the steps need, whole ones only."""
        wanted, limit = self.config.steps * self.config.batch_size, self.config.max_length
        rows: list[dict[str, Any]] = []
        kept, dropped = (dict.fromkeys(self.config.tasks, 0) for _ in range(2))
        longest = 0
        for row in stream:
            if len(rows) == wanted or sum(dropped.values()) > wanted:
                break
            encoded = self._encode(row)
            length = len(encoded["prompt_ids"]) + len(encoded["answer_ids"])
            longest = max(longest, length)
            if length > limit:
                dropped[row.task] += 1
            else:
                kept[row.task] += 1
                rows.append(encoded)
        for task, count in dropped.items():
            if count > kept[task]:
                raise ValueError(
                    f"most rows of {task} do not fit max_length {limit} ({count} left out, {kept[task]} kept): raise "
                    f"it to {longest}, or use shorter histories"
                )
        if any(dropped.values()):
            warnings.warn(
                f"rows longer than max_length {limit} are left out of training: {dropped}; the longest has {longest} "
                "tokens",
                stacklevel=4,
            )
        self.dropped = dropped
        return rows

    def _encode(self, row: Row) -> dict[str, Any]:
        return {
            "prompt_ids": self._prompt(row.task, row.number),
            "answer_ids": self._encode_answers([self.titles.write(row.answer)])[0],
            "vectors": {TASKS[row.task].space: self._inputs(row.task, row.vectors)},
            "row": row.number,
        }

    def _prompt(self, task: str, row: int | None = None) -> list[int]:
        """Token ids; `row` is the number of a training row, which may choose the template."""
        prompts, number = self._prompts[task], self.config.template
        if number is None and row is not None:
            template = prompts.choose(row, seed=self.config.seed)
        else:
            template = prompts[number or 0]
        if (task, template) not in self._prompt_ids:
            values = dict.fromkeys(TASKS[task].slots, self._model.soft_tokens.text(TASKS[task].space))
            encoded = template.encode(self._model.tokenizer, values, chat=self.config.chat)
            self._prompt_ids[task, template] = encoded.prompt_ids
        return self._prompt_ids[task, template]

    def _inputs(self, task: str, vectors: Tensor) -> Tensor:
        """Vectors (n, d) as the projector reads them."""
        return repeated(self._scales[TASKS[task].space](vectors), self.config.num_tokens)

    # --- reading ----------------------------------------------------------------------------------------------

    def interpret(self, history: Sequence[int | str]) -> Interpretation:
        """What the language model reads from the state of one history; see `interpret_all`."""
        return self.interpret_all([history])[0]

    def interpret_all(self, histories: Sequence[Sequence[int | str]]) -> list[Interpretation]:
        """Task recovery for histories of ids (int) or titles or raw ids (str), oldest first, all in few passes.

        The state looks at the last `source.max_history` items, and what is older counts as invented where it is named.

        Raises:
            UnknownItemError: an entry is not in the catalogue; names it and close titles.
            ValueError: an empty history, or recovery was not trained.
        """
        self.task("recovery")
        width = self.source.max_history
        padded = torch.zeros(len(histories), width, dtype=torch.int64)
        for number, history in enumerate(histories):
            ids = self.catalogue.resolve(history)[-width:]
            if not ids:
                raise ValueError(f"history {number} is empty: there is nothing to recover")
            padded[number, -len(ids) :] = torch.tensor(ids)
        texts = self.describe(self.source.states(padded), task="recovery")
        return [self._interpretation(text, ids) for text, ids in zip(texts, padded.tolist(), strict=True)]

    def _interpretation(self, text: str, padded: Sequence[int]) -> Interpretation:
        items = self.titles.read(text).items
        there = set(self.titles.same([i for i in padded if i]))
        once = list(dict.fromkeys(items))
        return Interpretation(text, items, [i for i in once if i in there], [i for i in once if i not in there])

    def describe(self, vectors: Tensor, *, task: str = "recovery") -> list[str]:
        """What the language model says of any vectors, greedily.

        Args:
            vectors: (B, d), as the backbone gives them: states for recovery, vectors of the item space for item;
                (B, 2, d) for residual, the states before and after. They need not belong to a real sequence or item.
            task: one of those that were trained.

        Raises:
            ValueError: a task that was not trained, vectors of another shape, or NaN or infinite values.
        """
        slots = len(self.task(task).slots)
        expected = (len(vectors), self.source.width) if slots == 1 else (len(vectors), slots, self.source.width)
        if tuple(vectors.shape) != expected:
            raise ValueError(f"vectors of {task} must have the shape {expected} (got {tuple(vectors.shape)})")
        if not bool(vectors.isfinite().all()):
            raise ValueError(f"vectors must be finite (got NaN or infinite values among {expected})")
        prompt = self._prompt(task)
        rows = vectors.detach().float().cpu().view(len(vectors), slots, self.source.width)
        with arithmetic(self.config.dtype):
            return generate_text(
                self.model,
                self.model.tokenizer,
                [prompt] * len(rows),
                max_new_tokens=min(self._answer_tokens(task), max(1, self.config.max_length - len(prompt))),
                vectors={self.task(task).space: [self._inputs(task, row) for row in rows]},
                max_tokens=self.config.max_tokens,
            )

    def _answer_tokens(self, task: str) -> int:
        return self._recovery_tokens if task == "recovery" else int(self._title_tokens.max())

    def measure(self, data: SequenceSplits, part: str, options: Any) -> dict[str, Any]:
        """Every trained task beside its controls, as "<task>-<system>" (`llm_rec.interpreter.evaluate`)."""
        from llm_rec.interpreter.evaluation import SYSTEMS, evaluate

        shared = {"max_rows": options.test_rows, "bootstrap": options.bootstrap, "seed": options.seed}
        return {
            f"{task}-{system}": result
            for task in self.config.tasks
            for system, result in evaluate(
                self, data, part, task=task, systems=[s for s in SYSTEMS if (task, s) != ("item", "probe")], **shared
            ).items()
        }

    # --- folders ----------------------------------------------------------------------------------------------

    def _save(self, folder: Path) -> None:
        """model/ (the adapter whole, the tokenizer, and what the language model is), backbone/, the prompts, and the
        vectors' scales.
        """
        for name in ("model", "backbone"):
            shutil.rmtree(folder / name, ignore_errors=True)
        self.source.save(folder / "backbone")
        for name, prompts in self._prompts.items():
            prompts.save(folder / f"prompts-{name}.json")
        save_scales(self._scales, folder / _SCALES)
        self.model.save_pretrained(folder / "model")
        parts = {
            "backbone": self.source.fingerprint(),
            "catalogue": catalogue_fingerprint(self.catalogue),
            "recovery_tokens": self._recovery_tokens,
            "dropped": self.dropped,
        }
        write_json(folder / _PARTS, parts)

    def _load(self, folder: Path) -> None:
        """Raises FileNotFoundError for a part that is missing, and ValueError for one that does not fit: another
        backbone, catalogue, tokenizer or language model, or a model without its projector.
        """
        prompt_files = {name: folder / f"prompts-{name}.json" for name in self.config.tasks}
        for path in (folder / _PARTS, folder / _SCALES, folder / "model" / "tokenizer_config.json",
                     folder / "backbone", *prompt_files.values()):  # fmt: skip
            if not path.exists():
                raise FileNotFoundError(
                    f"no {path.relative_to(folder)} in {folder}: it is incomplete, save the interpreter again"
                )
        parts = read_json(folder / _PARTS)
        if catalogue_fingerprint(self.catalogue) != parts["catalogue"]:
            raise ValueError(f"the catalogue in {folder} is not the one that this interpreter was trained on")
        self._source = VectorSource.load(folder / "backbone")
        if self.source.fingerprint() != parts["backbone"]:
            raise ValueError(f"the backbone in {folder} is not the one whose vectors this adapter was trained on")
        self._scales = load_scales(folder / _SCALES, width=self.source.width)
        self._recovery_tokens, self.dropped = parts["recovery_tokens"], parts["dropped"]
        model = SoftTokenCausalLM.from_pretrained(folder / "model", base=base_model(self.config)[0])
        self._prepare(model, {name: PromptSet.load(path) for name, path in prompt_files.items()})
