"""`prepared`: many SMILES to arrays of graphs in worker processes, of which any may die without loss."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from rdkit import rdBase

from mol_llm.features import Features, MoleculeArrays, molecule_arrays
from mol_llm.molecules import canonical_smiles

_AT_ONCE = 256  # SMILES that a worker is given
_DEATHS = 20  # in a row: more is no matter of single molecules


@dataclass
class Prepared:
    """What became of SMILES.

    Attributes:
        graphs: by the text that was read, the given or the canonical one.
        text: the text that was read for each given SMILES.
        failed: why a given SMILES has no graph.
    """

    graphs: dict[str, MoleculeArrays] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: Prepared) -> None:
        self.graphs |= other.graphs
        self.text |= other.text
        self.failed |= other.failed


Work = Callable[[Sequence[str], bool], Prepared]


def prepare_here(smiles: Sequence[str], canonical: bool, features: Features = "moltc") -> Prepared:
    """The graphs of SMILES, computed in this process."""
    found = Prepared()
    for given in smiles:
        try:
            with rdBase.BlockLogs():  # the reason is kept
                text = canonical_smiles(given) if canonical else given
                found.graphs[text] = molecule_arrays(text, features)
            found.text[given] = text
        except ValueError as error:
            found.failed[given] = str(error)
    return found


def prepared(smiles: Sequence[str], *, canonical: bool, workers: int, work: Work = prepare_here) -> Prepared:
    """The graphs of SMILES, in the order of the SMILES whatever the number of processes.

    A process that dies takes nothing with it: what it and its neighbours had in hand is read again one by one, and the
    SMILES at which a process dies again is among the failed.

    Args:
        smiles: different texts.
        canonical: read the canonical SMILES of each.
        workers: processes; 0: this one.
        work: what a worker does.

    Raises:
        ValueError: no worker can be started, or each dies.
    """
    chunks = [smiles[start : start + _AT_ONCE] for start in range(0, len(smiles), _AT_ONCE)]
    if not workers:
        done = [work(chunk, canonical) for chunk in chunks]
    else:
        done = _in_processes(chunks, canonical, min(workers, max(1, len(chunks))), work)
    whole = Prepared()
    for part in done:
        whole.add(part)
    return whole


def _in_processes(chunks: list[Sequence[str]], canonical: bool, workers: int, work: Work) -> list[Prepared]:
    done: dict[int, Prepared] = {}
    waiting = deque(range(len(chunks)))
    while waiting:
        running: dict[Future[Prepared], int] = {}
        with _pool(workers, work) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:  # few are in hand when a process dies
                        future = pool.submit(work, chunks[waiting[0]], canonical)
                        running[future] = waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        done[running[future]] = future.result()
                        del running[future]
            except BrokenProcessPool:
                pass  # what was in hand is in `running`
        for number in running.values():
            done[number] = _one_by_one(chunks[number], canonical, work)
    return [done[number] for number in range(len(chunks))]


def _one_by_one(smiles: Sequence[str], canonical: bool, work: Work) -> Prepared:
    """As `work`, in a process of its own that is given one SMILES at a time: the one it dies at is known."""
    found, waiting, deaths = Prepared(), deque(smiles), 0
    while waiting:
        with _pool(1, work) as pool:
            try:
                while waiting:
                    found.add(pool.submit(work, [waiting[0]], canonical).result())
                    waiting.popleft()
                    deaths = 0
            except BrokenProcessPool:
                given, deaths = waiting.popleft(), deaths + 1
                if deaths == _DEATHS:
                    raise ValueError(
                        f"{deaths} processes died one after the other, the last at {given!r}: is memory left? "
                        "Fewer workers need less"
                    ) from None
                found.failed[given] = f"{given!r}: the process that read it died (a crash of RDKit, or no memory left)"
    return found


def _pool(workers: int, work: Work) -> ProcessPoolExecutor:
    """Fresh processes, since a copy of one with threads, as torch has, may hang.

    Raises:
        ValueError: they cannot be started.
    """
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        pool.submit(work, [], False).result()  # otherwise every SMILES would be taken for one that kills
    except BrokenProcessPool:
        pool.shutdown()
        raise ValueError(
            "no worker process can be started: put what the script does under `if __name__ == '__main__':`, "
            "or prepare the molecules in this process (workers=0)"
        ) from None
    return pool
