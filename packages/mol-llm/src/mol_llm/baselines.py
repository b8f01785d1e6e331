"""Baselines of pairs: `PairMean`, and `PairFingerprints` and `PairMinimol`, boosted trees on both fingerprints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rdkit.Chem import rdFingerprintGenerator
from safetensors.numpy import load_file, save_file
from scipy.special import expit, softmax
from threadpoolctl import threadpool_limits

from mol_llm.minimol import minimol, minimol_missing
from mol_llm.molecules import parsed
from mol_llm.pair_method import NumbersOnly
from mol_llm.pairs import PairData, PairRows, PairTask
from predilect.configuration import at_least, new_defaults, option
from predilect.method import MethodConfig
from predilect.runs import read_json, write_json
from predilect.training.options import TRAINING

_MEAN, _TREES = "mean.json", "trees.safetensors"
_FINGERPRINTS, _BOOSTING = "Fingerprints", "Trees"
_PAIRS_AT_ONCE = 1024
_CHECKED_ROWS = 64
_ROWS_FOR_THREADS = 1000


class PairMean(NumbersOnly[MethodConfig]):
    """The same for every pair: the mean of the training values, or the share of each class among training rows.

    What a method must beat to have read the molecules at all: its R2 is at most 0, its area under the ROC curve 1/2.

    Examples:
        >>> from mol_llm import SOLVATION, PairData, PairRows
        >>> PairMean().fit(PairData(SOLVATION, PairRows(["CCO", "CC"], ["O", "O"], [-5.0, 2.0]))).predict("CO", "O")
        -1.5
    """

    name = "pair-mean"

    def __init__(self, config: MethodConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._mean: list[float] | None = None

    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        for row, pair in enumerate(pairs):
            for smiles in pair:
                _molecule(row, smiles)

    def _fit(self, data: PairData, folder: Path) -> None:
        targets = np.asarray(data.train.targets, dtype=np.float64)
        if data.task.kind == "class":
            self._mean = (np.bincount(targets.astype(int), minlength=len(data.task.answers)) / len(targets)).tolist()
        else:
            self._mean = [float(targets.mean())]

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        found = np.tile(np.asarray(self._fitted(self._mean), dtype=np.float64), (len(pairs), 1))
        return found if self.task.kind == "class" else found[:, 0]

    def _save(self, folder: Path) -> None:
        write_json(folder / _MEAN, self._fitted(self._mean))

    def _load(self, folder: Path) -> None:
        self._mean = read_json(folder / _MEAN)
        if self._mean is None:
            raise FileNotFoundError(f"{folder} has no {_MEAN}: it is incomplete, save the method again")


@dataclass
class PairFingerprintsConfig(MethodConfig):
    """Fingerprints and trees."""

    features: Literal["morgan", "minimol"] = option(
        "A molecule's fingerprint: Morgan's, or that of a pre-trained graph network (extra minimol).",
        panel=_FINGERPRINTS,
        default="morgan",
    )
    bits: int = option("Places of a molecule's Morgan fingerprint.", panel=_FINGERPRINTS, default=1024)
    radius: int = option("Bonds around an atom that make up one substructure.", panel=_FINGERPRINTS, default=2)
    counts: bool = option("How often a substructure is there; false: whether.", panel=_FINGERPRINTS, default=True)
    symmetric: bool = option(
        "Read (a, b) and (b, a) alike, as for two drugs that interact; false: the order counts.",
        panel=_FINGERPRINTS,
        default=False,
    )
    trees: int = option("Most rounds of boosting.", panel=_BOOSTING, default=300)
    leaves: int = option("Most leaves of a tree.", panel=_BOOSTING, default=31)
    leaf_rows: int = option("Fewest training rows of a leaf.", panel=_BOOSTING, default=20)
    learning_rate: float = option("Share of each tree that is added.", panel=TRAINING, default=0.1)
    patience: int = option(
        "Stop after so many rounds without a better loss on the validation rows, where there are any.",
        panel=TRAINING,
        default=20,
    )

    def __post_init__(self) -> None:
        at_least(self, bits=1, radius=0, trees=1, leaves=2, leaf_rows=1, patience=1)
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate must be in (0, 1] (got {self.learning_rate})")
        if self.features == "minimol":
            own = {field.name: field.default for field in dataclasses.fields(self)}
            if changed := [name for name in ("bits", "radius", "counts") if getattr(self, name) != own[name]]:
                raise ValueError(f"with features='minimol' there is no Morgan fingerprint: leave {changed[0]} out")

    def quick(self) -> Self:
        return dataclasses.replace(self, trees=2)


class PairFingerprints(NumbersOnly[PairFingerprintsConfig]):
    """Gradient-boosted trees on the fingerprints of both molecules, Morgan's or minimol's: what to try first.

    Features are the fingerprints f and g side by side or, `symmetric`, f + g and |f - g|, which say the same except
    for the order. The trees are those of scikit-learn's `HistGradientBoostingRegressor` (squared error) and
    `HistGradientBoostingClassifier` (log loss); validation rows, where there are any, say when to stop.

    scikit-learn keeps its models as pickles, which run any code that is in them. Here the folder holds the trees as
    plain arrays, and predictions are made from these, before saving as after loading, with no other version of
    scikit-learn in between; `fit` compares them with scikit-learn's own.

    Fitting holds 16 `bits` bytes a row (eight a feature, two molecules): 650 MB for 40,000 rows of 1,024. `minimol`
    (see `Minimol`) has 512 numbers in place of the bits.

    Examples:
        >>> def interaction(data):                                 # PairData of the task "interaction"
        ...     method = PairFingerprints(symmetric=True).fit(data)
        ...     return method.predict("CC(=O)Oc1ccccc1C(=O)O", "CCO")      # probabilities of no and yes
    """

    name = "pair-fingerprints"
    config_class = PairFingerprintsConfig

    def __init__(self, config: PairFingerprintsConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._trees: _Trees | None = None
        self._prints: dict[str, NDArray[Any]] = {}
        self._print = _minimol_print if self.config.features == "minimol" else _morgan_prints(self.config)

    @property
    def num_parameters(self) -> int:
        """Nodes of all trees: a threshold or a value each."""
        return len(self._fitted(self._trees).value)

    def require_ready(self) -> None:
        super().require_ready()
        if self.config.features == "minimol" and (missing := minimol_missing()) is not None:
            raise ValueError(missing)

    def _require(self, data: PairData) -> None:
        super()._require(data)
        if data.task.kind == "class" and len(set(data.train.targets)) < 2:
            raise ValueError(
                f"all training pairs have the class {data.train.targets[0]}: there is nothing to tell apart"
            )

    def _require_validation(self, task: PairTask, train: PairRows, validation: PairRows) -> None:
        super()._require_validation(task, train, validation)
        if task.kind == "class" and (unknown := set(validation.targets) - set(train.targets)):
            raise ValueError(f"validation has the class {min(unknown)}, of which there is no training pair")

    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        for row, pair in enumerate(pairs):
            for smiles in pair:
                if smiles not in self._prints:
                    self._prints[smiles] = self._print(_molecule(row, smiles))

    def _fit(self, data: PairData, folder: Path) -> None:
        x, y = self._features(data.train.pairs), _targets(data.train, data.task)
        columns = _splittable(x, self.config.leaf_rows)
        model = self._estimator(data.task, data.validation)
        # on few rows threads wait for each other, on a busy machine for minutes
        with threadpool_limits(1 if len(x) < _ROWS_FOR_THREADS else None, user_api="openmp"):
            if data.validation is not None and len(data.validation):
                unseen = self._features(data.validation.pairs)[:, columns]
                model.fit(x[:, columns], y, X_val=unseen, y_val=_targets(data.validation, data.task))
            else:
                model.fit(x[:, columns], y)
        self._trees = _Trees.of(model, data.task, columns)
        self._prints.clear()
        rows = x[:_CHECKED_ROWS]
        predict = model.predict_proba if data.task.kind == "class" else model.predict
        theirs = predict(rows[:, columns])
        own = self._answers(rows)
        own = own[:, self._trees.classes] if data.task.kind == "class" else own
        if not np.allclose(own, theirs, rtol=1e-6, atol=1e-9):
            raise RuntimeError("this version of scikit-learn keeps its trees in another way: they could not be read")

    def _estimator(self, task: PairTask, validation: PairRows | None) -> Any:
        # slow to import, and only for fitting
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if task.kind == "class" else HistGradientBoostingRegressor
        config = self.config
        return kind(
            max_iter=config.trees,
            max_leaf_nodes=config.leaves,
            min_samples_leaf=config.leaf_rows,
            learning_rate=config.learning_rate,
            early_stopping=validation is not None and len(validation) > 0,
            n_iter_no_change=config.patience,
            random_state=config.seed,
        )

    def _features(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """(pairs, twice a fingerprint's numbers)."""
        f, g = (np.stack([self._prints[pair[side]] for pair in pairs]).astype(np.float64) for side in (0, 1))
        return np.hstack([f + g, np.abs(f - g)] if self.config.symmetric else [f, g])

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        self._fitted(self._trees)
        parts = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
        found = [self._answers(self._features(part)) for part in parts]
        self._prints.clear()  # else memory would grow with every file that is predicted
        empty = np.zeros((0, len(self.task.answers)) if self.task.kind == "class" else 0)
        return np.concatenate(found) if found else empty

    def _answers(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n,), or probabilities (n, classes); a class without training rows has probability 0."""
        trees = self._fitted(self._trees)
        raw = trees.sums(features)
        if self.task.kind == "value":
            return raw[:, 0]
        one = expit(raw[:, 0])
        known = np.stack([1 - one, one], axis=1) if raw.shape[1] == 1 else softmax(raw, axis=1)
        found = np.zeros((len(features), len(self.task.answers)))
        found[:, trees.classes] = known
        return found

    def _save(self, folder: Path) -> None:
        save_file(vars(self._fitted(self._trees)), folder / _TREES)

    def _load(self, folder: Path) -> None:
        if not (folder / _TREES).is_file():
            raise FileNotFoundError(f"{folder} has no {_TREES}: it is incomplete, save the method again")
        self._trees = _Trees(**load_file(folder / _TREES))


@dataclass
@new_defaults(features="minimol")
class PairMinimolConfig(PairFingerprintsConfig):
    """Trees on the fingerprints of a pre-trained graph network."""


class PairMinimol(PairFingerprints):
    """`PairFingerprints` whose features are minimol's from the start, under a name of its own for comparisons."""

    name = "pair-minimol"
    config_class = PairMinimolConfig


@dataclass
class _Trees:
    """Boosted trees as arrays over the nodes of all of them; a leaf leads to itself.

    Attributes:
        roots: (rounds, outputs), numbers of nodes.
        feature, threshold, left, right: (nodes,); `left` is next where the feature is at most the threshold.
        value: (nodes,), what a leaf adds.
        start: (outputs,), what the sum starts from.
        depth: (1,), most steps from a root to a leaf.
        classes: (classes in training,), their numbers; empty for values.
    """

    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]
    start: NDArray[np.float64]
    depth: NDArray[np.int64]
    classes: NDArray[np.int64]

    @classmethod
    def of(cls, model: Any, task: PairTask, columns: NDArray[np.int64]) -> _Trees:
        """Of an estimator of scikit-learn, which has no public way to its trees, fitted on these columns."""
        rounds = model._predictors
        tables = [tree.nodes for trees in rounds for tree in trees]
        sizes = np.array([len(table) for table in tables])
        roots = np.cumsum(sizes) - sizes
        nodes, offset = np.concatenate(tables), np.repeat(roots, sizes)
        leaf, own = nodes["is_leaf"].astype(bool), np.arange(len(nodes))
        return cls(
            roots=roots.reshape(len(rounds), -1),
            feature=np.where(leaf, 0, columns[np.where(leaf, 0, nodes["feature_idx"])]),
            threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
            left=np.where(leaf, own, offset + nodes["left"]),
            right=np.where(leaf, own, offset + nodes["right"]),
            value=nodes["value"].astype(np.float64),
            start=np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1),
            depth=np.array([nodes["depth"].max()], dtype=np.int64),
            classes=np.asarray(model.classes_ if task.kind == "class" else [], dtype=np.int64),
        )

    def sums(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, outputs): the start and what every tree adds for n rows of features."""
        rows, flat = np.arange(len(features))[:, None], self.roots.reshape(-1)
        node = np.broadcast_to(flat, (len(features), len(flat)))
        for _ in range(int(self.depth[0])):
            node = np.where(
                features[rows, self.feature[node]] <= self.threshold[node], self.left[node], self.right[node]
            )
        added: NDArray[np.float64] = self.value[node].reshape(len(features), *self.roots.shape).sum(axis=1)
        return self.start + added


def _molecule(row: int, smiles: Any) -> Any:
    try:
        return parsed(smiles)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None


def _morgan_prints(config: PairFingerprintsConfig) -> Callable[[Any], NDArray[np.uint16]]:
    """Molecule -> (bits,)."""
    make = rdFingerprintGenerator.GetMorganGenerator(radius=config.radius, fpSize=config.bits)
    one = make.GetCountFingerprintAsNumPy if config.counts else make.GetFingerprintAsNumPy

    def print_of(molecule: Any) -> NDArray[np.uint16]:
        found: NDArray[np.uint16] = one(molecule).astype(np.uint16)  # no place counts 65,535 times in what can be read
        return found

    return print_of


def _minimol_print(molecule: Any) -> NDArray[np.float32]:
    """Molecule -> (512,)."""
    return minimol().read(molecule).fingerprint


def _targets(rows: PairRows, task: PairTask) -> NDArray[Any]:
    return np.asarray(rows.targets, dtype=np.float64 if task.kind == "value" else np.int64)


def _splittable(x: NDArray[np.float64], leaf_rows: int) -> NDArray[np.int64]:
    """The columns that can part the rows (n, columns) into two leaves of `leaf_rows` at least; the first if none can.

    No subset of the rows can be parted by another column, so that trees are the same without them. Most places of
    fingerprints are such columns, and a tree looks at every column in every node.
    """
    if 2 * leaf_rows > len(x):
        return np.zeros(1, dtype=np.int64)
    lower, upper = leaf_rows - 1, len(x) - leaf_rows
    ordered = np.partition(x, (lower, upper), axis=0)
    found = np.flatnonzero(ordered[lower] < ordered[upper])
    return found if len(found) else np.zeros(1, dtype=np.int64)
