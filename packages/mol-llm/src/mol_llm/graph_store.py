"""`GraphStore`: the graphs of many molecules in one file, by SMILES."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch_geometric.data import Data

from mol_llm.features import SIZES, Features, MoleculeArrays
from mol_llm.graphs import as_graph
from mol_llm.preparing import Prepared, prepare_here, prepared
from predilect.runs import whole_file
from predilect.runs.fingerprints import differences

_FORMAT = "mol_llm graphs 1"
_TENSORS = ("atoms", "atom_start", "bonds", "bond_features", "bond_start", "names", "name_start", "graph")


class GraphStore(Mapping[str, Data]):
    """SMILES -> `molecule_graph`, in one safetensors file that is mapped into memory: only what is read is loaded.

    The index of the SMILES is in memory, about 200 bytes each. A file says with which features, which version of RDKit
    and whether from canonical SMILES its graphs were made, and is refused where that is not what is asked for.

    Args:
        path: a file that `prepare` wrote.
        canonical: whether the graphs are those of the canonical SMILES: then texts of one molecule share a graph,
            whose atoms are in the order of the canonical text.
        features: of the graphs; see `molecule_graph`.

    Attributes:
        failed: why a SMILES that was to be prepared has no graph.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such file, it is damaged, or it was made otherwise.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = GraphStore.prepare(["CCO", "O", "water"], f"{folder}/graphs.safetensors", workers=0)
        ...     len(store), store["CCO"].num_nodes, store.failed
        (2, 3, {'water': "'water' is not a SMILES of a molecule"})
    """

    def __init__(self, path: str | Path, *, canonical: bool = False, features: Features = "moltc") -> None:
        self.path = Path(path)
        self._parts, about = _opened(self.path)
        changed = differences(about["made"], _made(canonical, features))
        if changed:
            raise ValueError(f"{self.path} holds graphs that were made otherwise ({'; '.join(changed)}): {_ANEW}")
        self.failed: dict[str, str] = about["failed"]
        names = bytes(self._parts["names"].numpy())
        places = self._parts["name_start"].tolist()
        texts = [names[low:high].decode() for low, high in pairwise(places)]
        self._number = dict(zip(texts, self._parts["graph"].tolist(), strict=True))

    @classmethod
    def prepare(
        cls,
        smiles: Iterable[str],
        path: str | Path,
        *,
        canonical: bool = False,
        workers: int | None = None,
        features: Features = "moltc",
    ) -> Self:
        """Open a file of graphs, after adding to it those that it has not; it is written if there is none.

        A SMILES without a graph is in `failed` with its reason, one at which RDKit kills its process too; all others
        are kept.

        Args:
            smiles: texts; repeated ones are read once.
            path: the file.
            canonical: see the class.
            workers: processes; None: one per core; 0: this one, which a crash of RDKit would end.
            features: see the class.

        Raises:
            ValueError: something is no text, the file does not fit (see the class), or no process can be started.
        """
        path, texts = Path(path), list(dict.fromkeys(smiles))
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"{wrong[0]!r} is not a text: SmilesReader leaves such rows out, with their reason")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be 0 (this process) or more (got {workers})")
        there = cls(path, canonical=canonical, features=features) if path.exists() else None
        known = Prepared() if there is None else there._all()
        new = [text for text in texts if text not in known.text and text not in known.failed]
        if new or there is None:
            processes = (os.cpu_count() or 1) if workers is None else workers
            del there  # some systems keep a file that is in use
            work = partial(prepare_here, features=features)
            known.add(prepared(new, canonical=canonical, workers=processes, work=work))
            _write(path, known, _made(canonical, features))
        return cls(path, canonical=canonical, features=features)

    def __getitem__(self, smiles: str) -> Data:
        number, parts = self._number[smiles], self._parts
        low, high = parts["atom_start"][number : number + 2].tolist()
        first, last = parts["bond_start"][number : number + 2].tolist()
        return as_graph(parts["atoms"][low:high], parts["bonds"][first:last], parts["bond_features"][first:last])

    def __contains__(self, smiles: object) -> bool:
        return smiles in self._number

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)

    def _all(self) -> Prepared:
        """Everything in the file, copied."""
        parts = {name: tensor.numpy().copy() for name, tensor in self._parts.items()}
        atoms = np.split(parts["atoms"], parts["atom_start"][1:-1])
        bonds = np.split(parts["bonds"], parts["bond_start"][1:-1])
        features = np.split(parts["bond_features"], parts["bond_start"][1:-1])
        read = {number: text for text, number in reversed(self._number.items())}  # the first text of a graph
        graphs = {read[n]: MoleculeArrays(atoms[n], bonds[n], features[n]) for n in sorted(read)}
        return Prepared(graphs, {text: read[n] for text, n in self._number.items()}, dict(self.failed))


_ANEW = "give another path, or delete the file to have it made anew"


def _made(canonical: bool, features: Features) -> dict[str, Any]:
    """What graphs depend on besides the SMILES."""
    return {
        "features": features,
        "atom_sizes": list(SIZES[features][0]),
        "bond_sizes": list(SIZES[features][1]),
        "canonical": canonical,
        "rdkit": rdBase.rdkitVersion,
    }


def _write(path: Path, known: Prepared, made: dict[str, Any]) -> None:
    graphs = list(known.graphs.values())
    number = {text: place for place, text in enumerate(known.graphs)}
    names = {**number, **{given: number[text] for given, text in known.text.items()}}
    encoded = [name.encode() for name in names]
    tensors = {
        "atoms": _joined([graph.atoms for graph in graphs], len(made["atom_sizes"]), np.uint8),
        "atom_start": _starts([len(graph.atoms) for graph in graphs]),
        "bonds": _joined([graph.bonds for graph in graphs], 2, np.int32),
        "bond_features": _joined([graph.bond_features for graph in graphs], len(made["bond_sizes"]), np.uint8),
        "bond_start": _starts([len(graph.bonds) for graph in graphs]),
        "names": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "name_start": _starts([len(name) for name in encoded]),
        "graph": np.array(list(names.values()), dtype=np.int64),
    }
    about = json.dumps({"format": _FORMAT, "made": made, "failed": known.failed})
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"about": about})


def _joined(arrays: list[NDArray[Any]], width: int, kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros((0, width), dtype=kind), *arrays])


def _starts(counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _opened(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The arrays of a file, as they lie on disk, and what it says of itself."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of graphs {path}: GraphStore.prepare(smiles, path) makes it")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if about.get("format") != _FORMAT:
                raise ValueError(f"{path} is not a file of graphs that GraphStore.prepare wrote: {_ANEW}")
            parts = {name: file.get_tensor(name) for name in _TENSORS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a file of graphs ({error}): {_ANEW}") from None
    ends = {"atom_start": "atoms", "bond_start": "bonds", "name_start": "names"}
    for start, values in ends.items():
        steps = parts[start].diff()
        if parts[start][0] != 0 or parts[start][-1] != len(parts[values]) or bool((steps < 0).any()):
            raise ValueError(f"{path} is damaged: its {start} does not fit its {values}: {_ANEW}")
    return parts, about
