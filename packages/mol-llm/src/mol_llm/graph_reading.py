"""`ReadsGraphs`: what all methods do that read the graphs of molecules, from a file or made in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from mol_llm.graph_store import GraphStore
from mol_llm.graphs import MoleculeGraphs
from mol_llm.molecule_options import GraphOptions
from predilect.method import ConfigT, Method


class ReadsGraphs(Method[ConfigT]):
    """A method with `GraphOptions`: its graphs are in `_graphs`, and where they lie changes no result."""

    def __init__(self, config: ConfigT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._graphs = MoleculeGraphs(self._graph_options.features)

    @property
    def _graph_options(self) -> GraphOptions:
        return cast(GraphOptions, self.config)

    def require_ready(self) -> None:
        super().require_ready()
        path = self._graph_options.graphs
        if path is not None and Path(path).exists():
            GraphStore(path, features=self._graph_options.features)  # refuses another kind of file, or other features

    def _keep_graphs(self, smiles: Sequence[str]) -> None:
        """Where a file is named, have it hold the graphs of these molecules."""
        if self._graph_options.graphs is not None:
            self._graphs.open(smiles, self._graph_options.graphs)

    def _run(self, data: Any) -> dict[str, Any]:
        run = super()._run(data)
        del run["config"]["graphs"]
        return run

    def forget(self) -> None:
        """Free the graphs that were made in memory, which grow with every call."""
        self._graphs.forget()
