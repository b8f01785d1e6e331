"""Graphs of many pairs, molecules of a batch, a step of MolTC and its class probabilities, each beside the plain way.

    python -m benchmarks.speed.mol_llm [--quick] [--output FOLDER]

Preparing: pairs of ChChMiner in one `GraphStore` against the published layout: a folder for each pair with five files,
both graphs, both SMILES and the answer, whose graphs are made anew for each pair. One process each.
Encoding: graphs side by side, Q-Former and all, each molecule of a batch once, against both members of every pair;
first it is checked that both give the same vectors. A step: forward, backward and optimizer, against the language
model alone on the same tokens (an ordinary token at every slot), which computes gradients down to its inputs too.
Probabilities: both answers on one computation of the prompt against a row for each; first compared in float32.

ChChMiner is read from the folder that PREDILECT_DATA names; a smoke run has pairs of a few alkanes and alcohols.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks import _preferences as shared
from benchmarks.speed import _results
from safetensors.torch import save_file

from mol_llm import INTERACTION, GraphStore, MoleculeTokens, MolTC, PairData, PairRows, molecule_graph, pair_inputs
from mol_llm.moltc import MOLECULE, PairCollator
from mol_llm.readers import read_chchminer
from predilect.modeling.answer_scores import score_candidates
from predilect.modeling.packed import label_logps
from predilect.testing import tiny_language_model
from predilect.tokenization import encode_answers

Pairs = Sequence[tuple[str, str]]
PAIRS, BATCH, STEP = 30_000, 64, 8


def pairs_of(*, quick: bool) -> PairRows:
    """Rows in an order drawn at random."""
    if quick:
        some = ["C" * n + end for n in range(1, 5) for end in ("", "O")]
        both = list(itertools.permutations(some, 2))[:40]
        rows = PairRows([a for a, _ in both], [b for _, b in both], [n % 2 for n in range(len(both))])
    else:
        rows = read_chchminer(shared.DATA / "ddi-chchminer").rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()[:PAIRS]
    return PairRows(*([values[i] for i in order] for values in (rows.first, rows.second, rows.targets)))


def prepare(rows: PairRows) -> dict[str, Any]:
    def stored(folder: Path) -> None:
        smiles = (smiles for pair in rows.pairs for smiles in pair)
        GraphStore.prepare(smiles, folder / "graphs.safetensors", workers=0)

    def published(folder: Path) -> None:
        for number, (pair, target) in enumerate(zip(rows.pairs, rows.targets, strict=True)):
            own = folder / str(number)
            own.mkdir()
            (own / "answer.txt").write_text(str(target))
            for role, smiles in enumerate(pair):
                graph = molecule_graph(smiles)
                tensors = {"x": graph.x, "edge_index": graph.edge_index, "edge_attr": graph.edge_attr}
                save_file(tensors, own / f"graph_{role}.safetensors")
                (own / f"smiles_{role}.txt").write_text(smiles)

    def into_new(write: Callable[[Path], None]) -> Callable[[], None]:
        def run() -> None:
            folder = Path(tempfile.mkdtemp())
            try:
                write(folder)
            finally:
                shutil.rmtree(folder)

        return run

    taken = _results.time_in_turns({"ours": into_new(stored), "published": into_new(published)}, repeats=1)
    molecules = len({smiles for pair in rows.pairs for smiles in pair})
    return _results.row(
        f"graphs of {len(rows):,} pairs of {molecules:,} molecules, made, written and deleted",
        ours=taken["ours"],
        baseline=taken["published"],
        unit="s",
        goal=20,
        baseline_is="a folder with five files for each pair",
    )


def encode(method: MolTC, pairs: Pairs, batches: int, repeats: int) -> dict[str, Any]:
    config = method.config
    network = MoleculeTokens(64, encoder=config.encoder_options(), qformer=config.qformer_options()).eval()
    graphs = {smiles: molecule_graph(smiles) for pair in pairs for smiles in pair}
    parts = [pairs[start : start + BATCH] for start in range(0, batches * BATCH, BATCH)]

    def once(part: Pairs) -> torch.Tensor:
        found: torch.Tensor = network(pair_inputs(part, graphs))
        return found

    def both(part: Pairs) -> torch.Tensor:
        """As if no two occurrences were one molecule: every one has a name of its own."""
        own = [((a, 2 * row), (b, 2 * row + 1)) for row, (a, b) in enumerate(part)]
        named: Any = {name: graphs[name[0]] for pair in own for name in pair}
        found: torch.Tensor = network(pair_inputs(own, named))  # type: ignore[arg-type]
        return found

    with torch.no_grad():
        for part in parts:
            torch.testing.assert_close(once(part), both(part), rtol=1e-4, atol=1e-4)
        taken = _results.time_in_turns(
            {"ours": lambda: [once(p) for p in parts], "both": lambda: [both(p) for p in parts]}, repeats=repeats
        )
    unique = sum(len({smiles for pair in part for smiles in pair}) for part in parts) / len(parts)
    return _results.row(
        f"vectors of the molecules of {BATCH} pairs, {unique:.1f} different ones a batch",
        ours=1000 * taken["ours"] / len(parts),
        baseline=1000 * taken["both"] / len(parts),
        unit="ms",
        goal=1.5,
        baseline_is="both members of every pair",
    )


def fitted(tuning: str, rows: PairRows, *, quick: bool, folder: Path) -> MolTC:
    """A MolTC after one step: its networks, prompts and inputs are those of training."""
    model, dtype = "smollm2-135m", "bfloat16" if shared.BF16 else "float32"
    if quick:
        tiny_language_model(folder / "lm")
        model, dtype = str(folder / "lm"), "float32"
    few = PairRows(*(values[:STEP] for values in (rows.first, rows.second, rows.targets)))
    options: dict[str, Any] = {"model": model, "dtype": dtype, "tuning": tuning, "save_steps": 10}
    return MolTC(epochs=1e-9, **options).fit(PairData(INTERACTION, few))


def step(method: MolTC, pairs: Pairs, repeats: int, *, quick: bool) -> dict[str, Any]:
    model, tokenizer = method.model, method.model.tokenizer
    answer = encode_answers(tokenizer, [INTERACTION.answers[1]])[0]
    prompts = method.prompts(pairs, INTERACTION)
    graphs = {smiles: molecule_graph(smiles) for pair in pairs for smiles in pair}
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    collate = PairCollator(pad, vectors=lambda part: {MOLECULE: pair_inputs(part, graphs)})
    rows = [{"prompt_ids": p, "answer_ids": answer, "row": n, "pair": pairs[n]} for n, p in enumerate(prompts)]
    slot = model.soft_tokens.ids[MOLECULE]
    ordinary = tokenizer("a", add_special_tokens=False)["input_ids"][0]

    def inputs() -> tuple[torch.Tensor, dict[str, Any]]:
        batch = collate(rows)
        return batch["labels"], {name: batch[name] for name in ("input_ids", "attention_mask", "vectors")}

    def trained(module: Any) -> list[Any]:
        return [p for p in module.parameters() if p.requires_grad]

    def updated(weights: list[Any], loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(weights) if weights else None

        def run() -> None:
            with shared.autocast(quick=quick):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()

        return run

    def whole() -> torch.Tensor:
        labels, given = inputs()
        return -label_logps(model, labels, **given).logps.mean()

    def alone() -> torch.Tensor:
        labels, given = inputs()
        ids = torch.where(given["input_ids"] == slot, ordinary, given["input_ids"])
        embedded = model.lm.get_input_embeddings()(ids).detach().requires_grad_()
        mask = given["attention_mask"]
        return -label_logps(model.lm, labels, inputs_embeds=embedded, attention_mask=mask).logps.mean()

    model.train()
    taken = _results.time_in_turns(
        {"moltc": updated(trained(model), whole), "alone": updated(trained(model.lm), alone)}, repeats=repeats
    )
    model.eval()
    name = "frozen" if method.config.tuning == "frozen" else "with LoRA"
    return _results.row(
        f"a step of MolTC, {len(pairs)} pairs, language model {name}, {'float32' if quick else shared.DTYPE}",
        ours=1000 * taken["moltc"],
        baseline=1000 * taken["alone"],
        unit="ms",
        goal=0.8,
        baseline_is="the language model alone on the same tokens",
    )


def probabilities(method: MolTC, pairs: Pairs, repeats: int, *, quick: bool) -> dict[str, Any]:
    model, tokenizer = method.model, method.model.tokenizer
    answers = encode_answers(tokenizer, INTERACTION.answers)
    prompts = method.prompts(pairs, INTERACTION)
    graphs = {smiles: molecule_graph(smiles) for pair in pairs for smiles in pair}
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def together() -> torch.Tensor:
        vectors = {MOLECULE: pair_inputs(pairs, graphs)}
        return score_candidates(model, prompts, [answers] * len(pairs), pad_token_id=pad, vectors=vectors)

    def apart() -> torch.Tensor:
        """A row for each answer, two batches; the molecules are computed for each of them."""
        vectors = {MOLECULE: pair_inputs(pairs, graphs)}
        found = [
            score_candidates(model, prompts, [[a]] * len(pairs), pad_token_id=pad, vectors=vectors) for a in answers
        ]
        return torch.cat(found, dim=1)

    with torch.no_grad():
        with shared.float32():
            torch.testing.assert_close(together(), apart(), rtol=1e-2, atol=1e-2 if quick or not shared.BF16 else 0.5)
        with shared.autocast(quick=quick):
            taken = _results.time_in_turns({"together": together, "apart": apart}, repeats=repeats)
    return _results.row(
        f"probabilities of two answers, {len(pairs)} pairs, {'float32' if quick else shared.DTYPE}",
        ours=1000 * taken["together"],
        baseline=1000 * taken["apart"],
        unit="ms",
        goal=1.7,
        baseline_is="a row for each answer",
    )


def main() -> None:
    given = _results.options(__doc__ or "")
    quick, repeats = given.quick, 1 if given.quick else 5
    torch.manual_seed(0)
    rows = pairs_of(quick=quick)
    pairs = rows.pairs[: 4 if quick else STEP]
    found = [prepare(rows), encode(MolTC(), rows.pairs, 1 if quick else 10, repeats)]
    with tempfile.TemporaryDirectory() as folder:
        for tuning in ("frozen", "lora"):
            method = fitted(tuning, rows, quick=quick, folder=Path(folder))
            found.append(step(method, pairs, repeats, quick=quick))
        found.append(probabilities(method, pairs, repeats, quick=quick))
    data = "alkanes and alcohols" if quick else f"ChChMiner, {len(rows):,} pairs in a random order"
    _results.write("mol_llm", found, data=data, given=given, packages=["mol-llm", "torch-geometric", "rdkit"])


if __name__ == "__main__":
    main()
