"""`MoleculeAlignment`: graph encoder and Q-Former, trained on descriptions of molecules; where `MolTC` starts from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from mol_llm.alignment_model import END, IGNORE, START, AlignmentModel, similarity
from mol_llm.command import DescriptionOptions
from mol_llm.descriptions import DescriptionData, DescriptionRows
from mol_llm.encoder import side_by_side
from mol_llm.graph_reading import ReadsGraphs
from mol_llm.molecule_options import MoleculeOptions
from mol_llm.molecules import canonical_smiles
from mol_llm.retrieval import RetrievalEvaluation, evaluate_retrieval
from predilect.configuration import at_least, new_defaults, option
from predilect.method import MethodConfig
from predilect.runs import write_text
from predilect.training import (
    AnswerRows,
    Trainer,
    answer_arguments,
    arithmetic,
    default_device,
    run_stage,
    stage_options,
)
from predilect.training.options import TRAINING, AnswerOptions

_TOKENIZER, _SPECIAL = "tokenizer.json", ("<pad>", "<start>", "<write>", "<end>")
_TEXTS, _FEWEST_TOKENS = "Texts", 256 + 4  # bytes and special tokens
_ROWS_AT_ONCE = 64


@dataclass
@new_defaults(batch_size=32, learning_rate=5e-4, weight_decay=0.05, epochs=10.0)
class MoleculeAlignmentConfig(MoleculeOptions, AnswerOptions, MethodConfig):
    """Graph encoder, Q-Former, texts and training.

    Defaults are for a laptop's CPU; those of the networks are `MolTC`'s, which must be equal to start from here.
    """

    vocabulary: int = option("Tokens of the texts: byte pairs, from the training texts.", panel=_TEXTS, default=4000)
    text_tokens: int = option("Most tokens of a text; the rest is cut.", panel=_TEXTS, default=96)
    width: int = option("Width of the space that graphs and texts share.", panel=_TEXTS, default=128)
    contrast: float = option("Weight of the contrastive loss; 0: without.", panel=TRAINING, default=1.0)
    matching: float = option("Weight of the matching loss; 0: without.", panel=TRAINING, default=1.0)
    captioning: float = option("Weight of the captioning loss; 0: without.", panel=TRAINING, default=1.0)
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "Arithmetic; auto: bfloat16 where the processor has it, or float32.", panel=TRAINING, default="float32"
    )

    def __post_init__(self) -> None:
        self.check_training()
        self.check_molecules()
        at_least(self, vocabulary=_FEWEST_TOKENS, text_tokens=2, width=1)
        for name in ("contrast", "matching", "captioning"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 (got {getattr(self, name)})")
        if not self.contrast + self.matching + self.captioning:
            raise ValueError("with contrast, matching and captioning at 0 nothing would be trained")

    def quick(self) -> Self:
        """The same with one optimizer step: enough to see that all works."""
        return dataclasses.replace(self, epochs=1e-9)


class MoleculeAlignment(ReadsGraphs[MoleculeAlignmentConfig]):
    """The first stage: graphs and descriptions of molecules in one space (`AlignmentModel`), without a language model.

    The networks are those of `MolTC` and start from a draw; the published code starts from GraphCL's and SciBERT's
    weights, and downloads the result. The Q-Former reads texts as byte pairs learned from the training texts, since
    SciBERT's words come with its weights. `MolTC(start=FOLDER)` takes graph encoder and Q-Former; what read the texts
    stays here.

    Negatives of contrast and matching are the other rows of the part of a batch that is computed at once: with
    `gradient_accumulation`, or several processes, there are fewer.

    Examples:
        >>> def align(data):                                      # DescriptionData
        ...     method = MoleculeAlignment(epochs=20).fit(data)
        ...     return method.similarity(["CCO", "c1ccccc1"], ["an alcohol", "an aromatic ring"])     # (2, 2)
    """

    name = "molecule-alignment"
    config_class = MoleculeAlignmentConfig
    data_options: ClassVar[type[Any] | None] = DescriptionOptions

    def __init__(self, config: MoleculeAlignmentConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._model: AlignmentModel | None = None
        self._tokenizer: Tokenizer | None = None

    @property
    def model(self) -> AlignmentModel:
        """The networks, in evaluation mode."""
        return self._fitted(self._model)

    @property
    def num_parameters(self) -> int:
        """Of the networks, with what reads texts."""
        return sum(p.numel() for p in self.model.parameters())

    # --- fitting ----------------------------------------------------------------------------------------------

    def _require(self, data: DescriptionData) -> None:
        if len(data.train) < 2:
            raise ValueError(
                f"graphs and texts are told apart from others: two rows are needed (got {len(data.train)})"
            )
        for row, text in enumerate(data.train.texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"row {row}: the text {text!r} is blank: remove the row")
        parts = [part for part in (data.train, data.validation, data.test) if part is not None]
        self._keep_graphs([smiles for part in parts for smiles in part.smiles])
        self._read(data.train.smiles)

    def _read(self, smiles: Sequence[str]) -> None:
        self._graphs.read([(text, text) for text in smiles])

    def fingerprint(self, data: DescriptionData) -> str:
        return data.fingerprint()

    def _fit(self, data: DescriptionData, folder: Path) -> None:
        self._tokenizer = _learned(data.train.texts, self.config.vocabulary)
        self._model = self._new_model()
        rows = self._training_rows(data.train)
        steps = math.ceil(len(rows) / self.config.batch_size)
        trainer = Trainer(
            self._model,
            answer_arguments(**stage_options(self.config, folder, steps=steps)),
            data_collator=AlignmentCollator(self._graphs),
            train_dataset=AnswerRows(rows),
        )
        run_stage(trainer, self.callbacks)
        self._model.eval()

    def _new_model(self) -> AlignmentModel:
        config = self.config
        torch.manual_seed(config.seed)
        return AlignmentModel(
            encoder=config.encoder_options(),
            qformer=config.qformer_options(),
            vocabulary=self._fitted(self._tokenizer).get_vocab_size(),
            text_tokens=config.text_tokens,
            width=config.width,
            weights=(config.contrast, config.matching, config.captioning),
        ).to(default_device())

    def _training_rows(self, rows: DescriptionRows) -> list[dict[str, Any]]:
        """All rows that training reads, one after the other: each epoch in an order of its own."""
        own = self._rows(rows.smiles, rows.texts)
        draw = np.random.default_rng(self.config.seed)
        epochs = [draw.permutation(len(own)) for _ in range(math.ceil(self.config.epochs))]
        # a row alone would have nothing to be told apart from
        order = np.concatenate(epochs)[: max(2, math.ceil(self.config.epochs * len(own)))]
        return [own[i] for i in order.tolist()]

    def _rows(self, smiles: Sequence[str], texts: Sequence[str]) -> list[dict[str, Any]]:
        ids = [encoded.ids for encoded in self._fitted(self._tokenizer).encode_batch(list(texts))]
        longest = self.config.text_tokens - 1
        molecules = {text: canonical_smiles(text) for text in dict.fromkeys(smiles)}
        return [
            {"smiles": s, "molecule": molecules[s], "text": text, "ids": own[:longest], "whole": len(own) <= longest}
            for s, text, own in zip(smiles, texts, ids, strict=True)
        ]

    # --- what it says -----------------------------------------------------------------------------------------

    def similarity(self, smiles: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
        """How near each of n molecules is to each of m texts, (n, m) in [-1, 1].

        Raises:
            ValueError: something that is no molecule, or a blank text; names its row.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"row {row}: the text {text!r} is blank")
        self._read(smiles)
        if not (len(smiles) and len(texts)):
            return np.zeros((len(smiles), len(texts)))
        model, device = self.model, default_device()
        z, t = [], []
        with torch.no_grad(), arithmetic(self.config.dtype):
            for part in _parts(smiles):
                inputs = {k: v.to(device) for k, v in side_by_side([self._graphs[s] for s in part]).items()}
                z.append(model.graph_vectors(*model.atoms(inputs, len(part))))
            for part in _parts(texts):
                ids, mask, _ = padded(self._rows(["C"] * len(part), part))
                t.append(model.text_vectors(ids.to(device), mask.to(device)))
            found: NDArray[np.float64] = similarity(torch.cat(z), torch.cat(t)).double().cpu().numpy()
        return found

    def caption_loss(self, smiles: Sequence[str], texts: Sequence[str]) -> float:
        """Mean negative log-likelihood of the texts' tokens given their molecules, in nats per token."""
        model, device = self.model, default_device()
        total, count = 0.0, 0
        self._read(smiles)
        collate = AlignmentCollator(self._graphs)
        with torch.no_grad(), arithmetic(self.config.dtype):
            for part in _parts(self._rows(smiles, texts)):
                batch = collate(part)
                graphs = {k: v.to(device) for k, v in batch["graphs"].items()}
                ids, mask, labels = (batch[name].to(device) for name in ("ids", "mask", "labels"))
                losses = model.caption_losses(*model.atoms(graphs, len(part)), ids, mask, labels)
                total, count = total + float(losses.sum()), count + int((labels != IGNORE).sum())
        return total / count

    def measure(self, data: DescriptionData, part: str, options: Any) -> dict[str, RetrievalEvaluation]:
        """Retrieval of texts by graphs and of graphs by texts among the rows of a part, and `caption_loss`."""
        rows = data.part(part)
        chosen = np.arange(len(rows))
        if options.test_rows is not None and options.test_rows < len(rows):
            chosen = np.sort(np.random.default_rng(options.seed).permutation(len(rows))[: options.test_rows])
        smiles, texts = [rows.smiles[i] for i in chosen.tolist()], [rows.texts[i] for i in chosen.tolist()]
        found = evaluate_retrieval(
            self.similarity(smiles, texts), smiles, texts, bootstrap=options.bootstrap, seed=options.seed
        )
        found.results["caption_loss"] = self.caption_loss(smiles, texts)
        return {"": found}

    # --- folders ----------------------------------------------------------------------------------------------

    def _save(self, folder: Path) -> None:
        self.model.save_pretrained(folder / "model")
        write_text(folder / "model" / _TOKENIZER, self._fitted(self._tokenizer).to_str())

    def _load(self, folder: Path) -> None:
        path = folder / "model" / _TOKENIZER
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no model/{_TOKENIZER}: it is incomplete, save the method again")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises no class of its own
            raise ValueError(f"{path} is damaged ({error}): save the method again") from None
        self._model = self._new_model()
        self._model.load_pretrained(folder / "model")
        self._model.eval()


@dataclass
class AlignmentCollator:
    """Rows of a batch as what `AlignmentModel` reads.

    Args:
        graphs: SMILES -> graph.
    """

    graphs: Mapping[str, Any]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids, mask, labels = padded(rows)
        same = [[a["molecule"] == b["molecule"] or a["text"] == b["text"] for b in rows] for a in rows]
        return {
            "graphs": side_by_side([self.graphs[row["smiles"]] for row in rows]),
            "ids": ids,
            "mask": mask,
            "labels": labels,
            "same": torch.tensor(same),
        }


def padded(rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """START and the tokens, which of them are there, and the token after each; a text that was cut has no END."""
    width = 1 + max(len(row["ids"]) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for number, row in enumerate(rows):
        length = 1 + len(row["ids"])
        after = [*row["ids"], END] if row["whole"] else row["ids"]
        ids[number, :length] = torch.tensor([START, *row["ids"]])
        mask[number, :length] = 1
        labels[number, : len(after)] = torch.tensor(after)
    return ids, mask, labels


def _learned(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte pairs of these texts; the special tokens are the numbers that `AlignmentModel` knows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(_SPECIAL), initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    return tokenizer


def _parts(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _ROWS_AT_ONCE] for start in range(0, len(values), _ROWS_AT_ONCE)]
