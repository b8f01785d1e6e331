"""`MolTC`: a language model that reads two molecules, as SMILES and as graphs (Fang et al., Findings of ACL 2024)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mol_llm.alignment import MoleculeAlignment
from mol_llm.alignment_model import WEIGHTS, different, read_weights
from mol_llm.descriptions import read_chebi20
from mol_llm.encoder import side_by_side
from mol_llm.evaluation import PairEvaluation, evaluate_pairs
from mol_llm.graph_reading import ReadsGraphs
from mol_llm.graphs import molecule_graph
from mol_llm.minimol import MINIMOL_WIDTH, minimol, minimol_missing
from mol_llm.molecule_options import GRAPHS, SHAPES, MoleculeOptions
from mol_llm.molecule_tokens import ROLES, MoleculeTokens, Sharing, pair_inputs
from mol_llm.molecules import canonical_smiles
from mol_llm.pair_method import PairMethod
from mol_llm.pairs import ANSWER, PairData, PairTask, read_reasoning, reasoned, value_of
from predilect.configuration import at_least, new_defaults, option
from predilect.method import METHOD_FILE, MethodConfig
from predilect.modeling.answer_scores import score_candidates, score_catalogue
from predilect.modeling.base_model import read_base, require_same_base
from predilect.modeling.generation import generate_text
from predilect.modeling.soft_token_lm import SoftTokenCausalLM
from predilect.runs import read_json, weights_fingerprint, write_json
from predilect.tokenization import SoftTokens, encode_answers
from predilect.training import (
    AnswerCollator,
    AnswerRows,
    AnswerTrainer,
    answer_arguments,
    compute_dtype,
    quiet,
    run_stage,
    stage_options,
)
from predilect.training.language_model import base_model, with_lora
from predilect.training.options import PROMPT, TRAINING, AnswerOptions, TuningOptions

MOLECULE = "molecule"
_PARTS = "moltc.json"
_OF_TEXT = re.compile(r"qformer\..*\.layer\.\d+\.(intermediate|output)\.")  # of the Q-Former, its layers for texts
_BRANCH = re.compile(r"branches\.\d+\.(encoder|qformer)\.")
_PAIRS_AT_ONCE = 64
_WRITTEN = 20  # tokens of a text, where the task does not say
LEVEL = 0.9  # of the intervals of values
_TOKENS_OF_A_WORD = 3  # of chemists' words, about


@dataclass
@new_defaults(batch_size=16, learning_rate=5e-4, weight_decay=0.05)
class MolTCConfig(MoleculeOptions, TuningOptions, AnswerOptions, MethodConfig):
    """Graph encoder, Q-Former, language model, prompt and training.

    Defaults are for SmolLM2-135M on a laptop's CPU. The paper has Galactica-1.3B, 5 layers of 300, a Q-Former of 12
    layers of 768 that starts from SciBERT, 8 queries, LoRA of rank 8, and a peak learning rate of 1e-4.
    """

    tuning: Literal["frozen", "lora", "full"] = option(  # type: ignore[assignment]
        "Language model: as it is (pair pre-training), with small added matrices, or trained in full.",
        panel="Language model",
        default="lora",
    )
    reads: Literal["both", "smiles", "graph"] = option(
        "What the prompt holds of each molecule: both; the others are ablations.", panel=PROMPT, default="both"
    )
    smiles_tokens: int = option(
        "Most tokens of a molecule's SMILES in the prompt; the rest is cut.", panel=PROMPT, default=64
    )
    chain_of_thought: bool = option(
        "Value tasks: say the interval, then the value (fine-grained chain of thought).", panel=PROMPT, default=True
    )
    generated: bool = option(
        "Value tasks: also write the answers, read the values from them, and measure these (results `text`).",
        panel=PROMPT,
        default=False,
    )
    descriptions: str | None = option(
        "Table of molecules and descriptions (ChEBI-20's layout): describe both molecules, as far as they are in it, "
        "then answer (broad-grained chain of thought). None: without.",
        panel=PROMPT,
        default=None,
    )
    description_words: int = option(
        "Words of a description that are said, with descriptions=.", panel=PROMPT, default=30
    )
    sharing: Sharing = option(
        "Networks of the two roles: tied, untied, or soft (one, with a low-rank change per role).",
        panel=GRAPHS,
        default="tied",
    )
    minimol: bool = option(
        "One more vector per molecule: the fingerprint of a pre-trained graph network (extra minimol).",
        panel=GRAPHS,
        default=False,
    )
    start: str | None = option(
        "Folder of a saved MoleculeAlignment or MolTC from whose networks training starts: the stage before.",
        panel=TRAINING,
        default=None,
    )

    def __post_init__(self) -> None:
        self.check_language_model()
        self.check_training()
        self.check_molecules()
        at_least(self, smiles_tokens=1, description_words=1)
        if self.reads == "smiles" and self.graphs is not None:
            raise ValueError(f"with reads='smiles' no graph is read: leave graphs={self.graphs} out")
        if self.reads == "smiles" and self.minimol:
            raise ValueError("with reads='smiles' no vector is read: leave minimol out")
        if self.reads == "smiles" and self.tuning == "frozen":
            raise ValueError(
                "with reads='smiles' and tuning='frozen' nothing would be trained: choose another of them"
            )

    def quick(self) -> Self:
        """The same with one optimizer step: enough to see that all works."""
        return dataclasses.replace(self, epochs=1e-9)


class MolTC(ReadsGraphs[MolTCConfig], PairMethod[MolTCConfig]):
    """Two molecules in a prompt, each as SMILES and as Q vectors of its graph, and the answer as text.

    Prompt: `First molecule: SMILES <Q vectors> Second molecule: SMILES <Q vectors> QUESTION`. Loss: the mean negative
    log-likelihood of the answer's tokens. Answers are read as numbers: class probabilities are
    `softmax_c log p(answer_c | prompt)`, all on one computation of the prompt; for values every text of the grid
    between the smallest and the largest training value is scored, again on one computation, which is decoding over
    digits with nothing pruned, and the prediction is the expected value.

    The authors' code replaces the second molecule's vectors by the first's in training and does not save its LoRA
    weights; here every prompt must hold exactly 2 Q slots, and the folder holds all that was trained.

    Examples:
        >>> def solvation(data):                                        # PairData of the task "solvation"
        ...     method = MolTC(epochs=5).fit(data)
        ...     return method.predict("CCO", "O", task="solvation")     # kcal/mol
    """

    name = "moltc"
    config_class = MolTCConfig
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"  # minutes of a language model

    def __init__(self, config: MolTCConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._model: Any = None
        self._range: tuple[float, float] = (0.0, 0.0)
        self._mean = 0.0  # of the training values
        self._fingerprints: dict[str, Tensor] = {}

    @property
    def model(self) -> Any:
        """The `SoftTokenCausalLM`, in evaluation mode."""
        return self._fitted(self._model)

    @property
    def num_parameters(self) -> int:
        """Of the language model with all its parts."""
        return sum(p.numel() for p in self.model.parameters())

    # --- fitting ----------------------------------------------------------------------------------------------

    def require_ready(self) -> None:
        super().require_ready()
        if self.config.descriptions is not None and not Path(self.config.descriptions).is_file():
            raise FileNotFoundError(f"there is no file {self.config.descriptions} of descriptions")
        if self.config.minimol and (missing := minimol_missing()) is not None:
            raise ValueError(missing)
        if self.config.start is not None:
            _require_start(self.config, Path(self.config.start))

    def _require(self, data: PairData) -> None:
        if self.config.descriptions is not None and data.task.kind == "text":
            raise ValueError(
                f"{data.task.name!r} asks for a text, before which nothing is said: leave descriptions out"
            )
        self._keep_graphs(data.molecules())
        super()._require(data)

    def _run(self, data: PairData) -> dict[str, Any]:
        run = super()._run(data)
        if self.config.descriptions is not None:
            run["config"]["descriptions"] = hashlib.sha256(Path(self.config.descriptions).read_bytes()).hexdigest()
        start = self.config.start and Path(self.config.start)
        if start:
            _require_start(self.config, start)
        return {**run, "start": start and weights_fingerprint(_weights(start))}

    def _fit(self, data: PairData, folder: Path) -> None:
        if data.task.kind == "value":
            values = np.asarray(data.train.targets, dtype=float)
            self._range = (float(values.min()), float(values.max()))
            self._mean = float(values.mean())
        self._model = self._new_model()
        rows = self._training_rows(data)
        run_stage(self._trainer(rows, folder), self.callbacks)
        self._model.eval()

    def _new_model(self) -> Any:
        config = self.config
        lm, tokenizer = base_model(config)
        if config.start is not None:
            _require_language_model(lm, Path(config.start))
        lm = lm if config.tuning == "frozen" else with_lora(lm, config)
        tuning = {"frozen": "frozen", "lora": "adapter", "full": "full"}[config.tuning]
        width = lm.get_input_embeddings().weight.shape[1]
        molecules = MoleculeTokens(
            width,
            sharing=config.sharing,
            encoder=config.encoder_options(),
            qformer=config.qformer_options(),
            fingerprint=MINIMOL_WIDTH if config.minimol else 0,
        )
        if config.start is not None:
            _start_from(molecules, config, Path(config.start))
        soft = SoftTokens({MOLECULE: self._slots})
        model = SoftTokenCausalLM(
            lm, tokenizer, soft, input_sizes={}, projectors={MOLECULE: molecules}, tuning=tuning, seed=config.seed
        )
        if config.start is not None:
            _go_on(model, config, Path(config.start))
        return model

    def _training_rows(self, data: PairData) -> list[dict[str, Any]]:
        """All rows that training reads, one after the other: each epoch in an order of its own."""
        answers = self._encoded([self._answer(data.task, target) for target in data.train.targets])
        if self.config.descriptions is not None:
            before = self._ids([" " + text for text in self._reasons(data.train.pairs)])
            answers = [[*said, *answer] for said, answer in zip(before, answers, strict=True)]
        pairs, count = data.train.pairs, len(data.train)
        prompts = self.prompts(pairs, data.task)
        draw = np.random.default_rng(self.config.seed)
        epochs = [draw.permutation(count) for _ in range(math.ceil(self.config.epochs))]
        order = np.concatenate(epochs)[: max(1, math.ceil(self.config.epochs * count))]
        return [
            {"prompt_ids": prompts[i], "answer_ids": answers[i], "row": int(i), "pair": pairs[i]}
            for i in order.tolist()
        ]

    def _reasons(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """What is said of each training pair before its answer.

        Raises:
            ValueError: no molecule of these pairs is described.
        """
        path = str(self.config.descriptions)
        rows = read_chebi20(path).rows
        texts = {canonical_smiles(smiles): text for smiles, text in zip(rows.smiles, rows.texts, strict=True)}
        known = {smiles: texts.get(canonical_smiles(smiles)) for pair in pairs for smiles in pair}
        if not any(known.values()):
            raise ValueError(f"{path} describes none of the training pairs' molecules: leave descriptions out")
        return [reasoned(known[a], known[b], words=self.config.description_words) for a, b in pairs]

    def _trainer(self, rows: list[dict[str, Any]], folder: Path) -> AnswerTrainer:
        steps = math.ceil(len(rows) / self.config.batch_size)
        return AnswerTrainer(
            self._model,
            answer_arguments(**stage_options(self.config, folder, steps=steps)),
            data_collator=PairCollator(self._pad, vectors=self._vectors),
            train_dataset=AnswerRows(rows),
        )

    # --- prompts ----------------------------------------------------------------------------------------------

    def prompts(self, pairs: Sequence[tuple[str, str]], task: PairTask) -> list[list[int]]:
        """Token ids of the prompts, each molecule's SMILES within its own budget.

        Raises:
            RuntimeError: a prompt without exactly the slots of two molecules.
        """
        smiles = list(dict.fromkeys(s for pair in pairs for s in pair))
        budget = self.config.smiles_tokens
        halves = {s: ids[:budget] for s, ids in zip(smiles, self._ids([" " + s for s in smiles]), strict=True)}
        slot = self.model.soft_tokens.ids[MOLECULE]
        slots = [slot] * self._slots if self._reads_graphs else []
        first, second, question = self._ids(["First molecule:", "\nSecond molecule:", f"\n{task.question}"])
        bos = self._start_ids
        prompts = []
        for a, b in pairs:
            texts = (halves[a], halves[b]) if self.config.reads != "graph" else ([], [])
            prompts.append([*bos, *first, *texts[0], *slots, *second, *texts[1], *slots, *question])
            if prompts[-1].count(slot) != ROLES * len(slots):
                raise RuntimeError(f"the prompt of {a!r} and {b!r} has {prompts[-1].count(slot)} slots")
        return prompts

    @cached_property
    def _start_ids(self) -> list[int]:
        """What the tokenizer puts before a text, such as BOS."""
        tokenizer = self.model.tokenizer
        with_special: list[int] = tokenizer("a")["input_ids"]
        bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
        return with_special[: with_special.index(bare[0])]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _answer(self, task: PairTask, target: Any) -> str:
        return task.answer(target, chain_of_thought=self.config.chain_of_thought)

    def _encoded(self, answers: Sequence[str]) -> list[list[int]]:
        return encode_answers(self.model.tokenizer, answers)

    @property
    def _slots(self) -> int:
        """Vectors of a molecule in the prompt."""
        return self.config.queries + self.config.minimol

    @property
    def _reads_graphs(self) -> bool:
        return self.config.reads != "smiles"

    @property
    def _pad(self) -> int:
        tokenizer = self.model.tokenizer
        pad: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return pad

    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make the graphs and fingerprints that are not there yet.

        Raises:
            ValueError: something that is no molecule; names row and SMILES.
        """
        self._graphs.read(pairs)
        if self.config.minimol:
            for smiles in dict.fromkeys(smiles for pair in pairs for smiles in pair):
                if smiles not in self._fingerprints:
                    self._fingerprints[smiles] = torch.from_numpy(minimol().read(smiles).fingerprint)

    # --- predictions ------------------------------------------------------------------------------------------

    def forget(self) -> None:
        super().forget()
        self._fingerprints.clear()

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64] | list[str]:
        if self.task.kind == "text":
            return self._texts(pairs)
        probabilities = self._probabilities(pairs)
        return probabilities if self.task.kind == "class" else probabilities @ self.values

    def interval(
        self, first: str | Sequence[str], second: str | Sequence[str], *, level: float = LEVEL
    ) -> NDArray[np.float64]:
        """Where the value of each of n pairs lies by the scores of the grid's texts, (n, 2): low and high.

        The smallest values of the grid at which the probability of that value or less reaches `(1 - level) / 2` and
        `(1 + level) / 2`. How often such intervals hold the truth is measured (`interval_coverage`): a model that was
        trained for few steps may be sure and wrong.

        Raises:
            ValueError: another task than of values, a level outside (0, 1), or what `predict` raises.
        """
        self._require_values("an interval")
        if not 0 < level < 1:
            raise ValueError(f"level must be in (0, 1) (got {level})")
        return self._interval(self._probabilities(self._pairs(first, second)), level)

    def written_values(
        self, first: str | Sequence[str], second: str | Sequence[str]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """What the model writes for each of n pairs, and the values (n,) that are read from it (`value_of`).

        NaN where the text says no number. `predict` needs no such reading: it scores the texts of all values.

        Raises:
            ValueError: another task than of values, or what `predict` raises.
        """
        self._require_values("a written value")
        pairs = self._pairs(first, second)
        lengths = [len(ids) for ids in self._encoded([self._answer(self.task, value) for value in self.values])]
        before = 0 if self.config.descriptions is None else self._reasoning_tokens
        texts = self._texts(pairs, max_new_tokens=max(lengths) + before)
        return np.array([value_of(text.rpartition(ANSWER)[2]) for text in texts], dtype=np.float64), texts

    def measure(self, data: PairData, part: str, options: Any) -> dict[str, PairEvaluation]:
        """As `PairMethod.measure`; of a value task also how good its intervals are, and `text` (`generated`).

        `interval_coverage` is the share of the rows whose target is in the central 90 % interval or within half a step
        of it, `interval_width` the mean width. In `text` the values come from what the model writes: `coverage` says
        how often there is one, and `mae_imputed` puts the mean of the training values where there is none.
        """
        if self.task.kind != "value":
            return super().measure(data, part, options)
        rows = self._measured_rows(data, part, options)
        how = {"bootstrap": options.bootstrap, "seed": options.seed}
        probabilities = self._probabilities(self._pairs(list(rows.first), list(rows.second)))
        expected = evaluate_pairs(self.task, rows, probabilities @ self.values, **how)
        low, high = self._interval(probabilities, LEVEL).T
        targets, half = np.asarray(rows.targets, dtype=np.float64), self.task.step / 2 + 1e-9
        held = (targets >= low - half) & (targets <= high + half)
        expected.results["interval_coverage"] = float(held.mean())
        expected.results["interval_width"] = float((high - low).mean())
        if not self.config.generated:
            return {"": expected}
        values, _ = self.written_values(list(rows.first), list(rows.second))
        return {"": expected, "text": evaluate_pairs(self.task, rows, values, fallback=self._mean, **how)}

    def _require_values(self, what: str) -> None:
        if self.task.kind != "value":
            raise ValueError(f"{what} is of a task of values, and {self.task.name!r} is of the kind {self.task.kind}")

    def _probabilities(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """(n, values of the grid)."""
        found: NDArray[np.float64] = self.log_probabilities(pairs).double().softmax(dim=1).numpy()
        return found

    def _interval(self, probabilities: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        reached = probabilities.cumsum(axis=1)
        places = [(reached < share - 1e-9).sum(axis=1) for share in ((1 - level) / 2, (1 + level) / 2)]
        ends: NDArray[np.float64] = self.values[np.stack(places, axis=1).clip(max=len(self.values) - 1)]
        return ends

    @property
    def values(self) -> NDArray[np.float64]:
        """The values of a value task whose texts are scored: a grid over the range of the training values."""
        step = self.task.step
        low, high = (round(v / step) for v in self._range)
        grid: NDArray[np.float64] = np.arange(low, high + 1, dtype=np.float64) * step
        return grid

    def log_probabilities(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Log-probability (n, answers) of each answer's text, in nats: of the classes, or of `values`."""
        model, batches = self.model, []
        numbers = self.values if self.task.kind == "value" else range(len(self.task.answers))
        answers = self._encoded([self._answer(self.task, number) for number in numbers])
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[start : start + _PAIRS_AT_ONCE]
            prompts, vectors = self.prompts(part, self.task), self._vectors(part)
            if self.config.descriptions is not None:
                said = self._ids([" " + text for text in self._said(part)])
                prompts = [[*prompt, *ids] for prompt, ids in zip(prompts, said, strict=True)]
            more: dict[str, Any] = {
                "pad_token_id": self._pad,
                "vectors": vectors,
                "max_tokens": self.config.max_tokens,
            }
            if self.task.kind == "value":
                batches.append(score_catalogue(model, prompts, answers, **more))
            else:
                batches.append(score_candidates(model, prompts, [answers] * len(part), **more))
        return torch.cat(batches) if batches else torch.zeros(0, len(answers))

    def _vectors(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
        if not self._reads_graphs:
            return None
        return {MOLECULE: pair_inputs(pairs, self._graphs, self._fingerprints if self.config.minimol else None)}

    def reasoning(self, first: Sequence[str], second: Sequence[str]) -> list[str]:
        """What the model says of pairs before it answers, given which the answers are scored.

        Raises:
            ValueError: something that is no molecule, or it was fitted without `descriptions`.
        """
        if self.config.descriptions is None:
            raise ValueError("this MolTC was fitted without descriptions: it answers at once")
        pairs = list(zip(first, second, strict=True))
        self._read(pairs)
        parts = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
        return [text for part in parts for text in self._said(part)]

    @property
    def _reasoning_tokens(self) -> int:
        return _TOKENS_OF_A_WORD * ROLES * self.config.description_words

    def _said(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        texts = generate_text(
            self.model,
            self.model.tokenizer,
            self.prompts(pairs, self.task),
            max_new_tokens=self._reasoning_tokens,
            vectors=self._vectors(pairs),
        )
        return [read_reasoning(text) for text in texts]

    def _texts(self, pairs: Sequence[tuple[str, str]], *, max_new_tokens: int = _WRITTEN) -> list[str]:
        return [
            text
            for start in range(0, len(pairs), _PAIRS_AT_ONCE)
            for text in generate_text(
                self.model,
                self.model.tokenizer,
                self.prompts(pairs[start : start + _PAIRS_AT_ONCE], self.task),
                vectors=self._vectors(pairs[start : start + _PAIRS_AT_ONCE]),
                max_new_tokens=max_new_tokens,
            )
        ]

    def atom_attention(self, smiles: str, *, role: int = 0) -> NDArray[np.float64]:
        """How much each query reads of each atom of a molecule, (queries, atoms), in the order of the SMILES.

        Rows sum to 1 together with what is read of the mean of the atoms.

        Raises:
            ValueError: no SMILES, a role other than 0 and 1, or a method that reads no graphs.
        """
        if not self._reads_graphs:
            raise ValueError("this MolTC reads SMILES alone (reads='smiles'): it has no queries that read atoms")
        if role not in range(ROLES):
            raise ValueError(f"role is 0, the first molecule, or 1, the second (got {role})")
        graphs = side_by_side([molecule_graph(smiles, self.config.features)])
        module = self.model.projectors[MOLECULE]
        device = next(module.parameters()).device
        weights = module.attention({key: value.to(device) for key, value in graphs.items()}, role)
        found: NDArray[np.float64] = weights[0, :, 1:].double().cpu().numpy()
        return found

    # --- folders ----------------------------------------------------------------------------------------------

    def _save(self, folder: Path) -> None:
        self.model.save_pretrained(folder / "model")
        write_json(folder / _PARTS, {"range": list(self._range), "mean": self._mean})

    def _load(self, folder: Path) -> None:
        parts = read_json(folder / _PARTS)
        if parts is None:
            raise FileNotFoundError(f"{folder} has no {_PARTS}: it is incomplete, save the method again")
        self._range, self._mean = tuple(parts["range"]), parts["mean"]
        full = self.config.tuning == "full"
        base = None if full else base_model(self.config)[0]
        with quiet():
            self._model = SoftTokenCausalLM.from_pretrained(
                folder / "model", base=base, dtype=torch.float32 if full else compute_dtype(self.config.dtype)
            )


@dataclass
class PairCollator(AnswerCollator):
    """`AnswerCollator` whose rows bring a `pair`: what is read of the molecules of a batch, each of them once.

    Args:
        vectors: pairs -> the inputs at the slots of their prompts, or None where these hold no slots.
    """

    vectors: Callable[[Sequence[tuple[str, str]]], dict[str, Any] | None] = lambda pairs: None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(rows)
        vectors = self.vectors([row["pair"] for row in rows])
        return batch if vectors is None else {**batch, "vectors": vectors}


def _require_start(config: MolTCConfig, folder: Path) -> str:
    """Raise what `_start_from` raises but for the weights; the name of the method that the folder holds."""
    about = read_json(folder / METHOD_FILE)
    if about is None:
        raise FileNotFoundError(f"start={folder} is not a saved MolTC or MoleculeAlignment: it has no {METHOD_FILE}")
    kind: str = about["method"]
    if kind not in (MolTC.name, MoleculeAlignment.name):
        raise ValueError(f"start={folder} holds {kind!r}: a stage starts from moltc or molecule-alignment")
    there = about["config"]
    changed = [
        f"{name} is {there.get(name)} there and {getattr(config, name)} here"
        for name in SHAPES
        if there.get(name) != getattr(config, name)
    ]
    if kind == MolTC.name and there.get("minimol") != config.minimol:
        changed.append(f"minimol is {there.get('minimol')} there and {config.minimol} here")
    tuned = there.get("tuning")
    if kind == MolTC.name and tuned != "frozen":
        # what was trained of the language model would be lost in silence
        changed += [
            f"{name} is {there.get(name)} there and {getattr(config, name)} here"
            for name in (
                "tuning",
                *(("lora_rank", "lora_alpha", "lora_layers") if tuned == config.tuning == "lora" else ()),
            )
            if there.get(name) != getattr(config, name)
        ]
    if kind == MolTC.name and there.get("sharing") not in ("tied", config.sharing):
        changed.append(f"sharing is {there.get('sharing')} there and {config.sharing} here")
    if changed:
        raise ValueError(f"start={folder} does not fit: {'; '.join(changed)}")
    return kind


def _start_from(molecules: MoleculeTokens, config: MolTCConfig, folder: Path) -> None:
    """Take the weights of the networks of molecules that a saved `MolTC` or `MoleculeAlignment` has.

    An alignment has no map to a language model, which keeps its draw, and layers that read text, which are left
    behind. One network for both roles is the start of two, or of one with changes per role.

    Raises:
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: another kind of method, or networks of another shape; names the difference.
    """
    kind = _require_start(config, folder)
    weights, own = _weights(folder), molecules.state_dict()
    if kind == MoleculeAlignment.name:
        there = {key: value for key, value in weights.items() if key.startswith(("encoder.", "qformer."))}
        there = {key: value for key, value in there.items() if not _OF_TEXT.match(key)}
        branches = {
            f"branches.{n}.{key}": value for n in range(len(molecules.branches)) for key, value in there.items()
        }
        wanted = [key for key in own if _BRANCH.match(key)]
    else:
        prefix = f"projectors.{MOLECULE}."
        branches = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if not any(key.startswith("branches.1.") for key in branches):
            first = {key: value for key, value in branches.items() if key.startswith("branches.0.")}
            for n in range(1, len(molecules.branches)):
                branches |= {key.replace("branches.0.", f"branches.{n}.", 1): value for key, value in first.items()}
        wanted = [key for key in own if "deltas" not in key or key in branches]
    if wrong := different({key: own[key] for key in wanted}, branches):
        raise ValueError(f"start={folder} does not fit: its networks of molecules differ at {wrong}")
    molecules.load_state_dict(branches, strict=False)


def _require_language_model(lm: Any, folder: Path) -> None:
    """Raise ValueError where this language model, without adapter, is not the one that a saved `MolTC` was trained on.

    One that was trained in full is known by the shapes of its weights alone, which `_go_on` compares.
    """
    about = read_json(folder / METHOD_FILE) or {}
    if about.get("method") != MolTC.name or about["config"]["tuning"] == "full":
        return
    try:
        require_same_base(lm, read_base(folder / "model"), folder)
    except ValueError as error:
        raise ValueError(f"start={folder} does not fit: {error}") from None


def _go_on(model: SoftTokenCausalLM, config: MolTCConfig, folder: Path) -> None:
    """Take what a saved `MolTC` trained of its language model.

    Raises:
        ValueError: weights of another shape; names the first.
    """
    about = read_json(folder / METHOD_FILE)
    if about["method"] != MolTC.name:
        return
    if about["config"]["tuning"] == "frozen":
        return
    own = model.state_dict()
    trained = {key: value for key, value in _weights(folder).items() if key.startswith("lm.")}
    wrong = [key for key, value in trained.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise ValueError(f"start={folder} does not fit: its language model differs at {wrong[0]}")
    model.load_state_dict(trained, strict=False)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder to start from."""
    try:
        return read_weights(folder / "model" / WEIGHTS)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"start={folder} cannot be started from: {error}") from None
