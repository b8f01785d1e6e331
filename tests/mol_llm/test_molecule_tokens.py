from __future__ import annotations

from typing import Any

import pytest
import torch

from mol_llm import MoleculeTokens, molecule_graph, pair_inputs, side_by_side
from mol_llm.encoder import GINEncoder
from mol_llm.graphs import ATOM_SIZES, BOND_SIZES

SMILES = ["CCO", "O", "c1ccccc1", "C[C@H](N)C(=O)O"]
GRAPHS = {s: molecule_graph(s) for s in SMILES}
ENCODER: dict[str, Any] = {"atom_sizes": ATOM_SIZES, "bond_sizes": BOND_SIZES, "layers": 3, "hidden": 12}
QFORMER: dict[str, Any] = {"queries": 3, "width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
PAIRS = [("CCO", "O"), ("CCO", "CCO"), ("c1ccccc1", "O"), ("O", "CCO")]


def make(sharing: Any = "tied") -> MoleculeTokens:
    torch.manual_seed(0)
    return MoleculeTokens(8, sharing=sharing, encoder=ENCODER, qformer=QFORMER).eval()


def test_features_are_those_of_moltc() -> None:
    graph = molecule_graph("C[C@H](N)C(=O)O")
    assert graph.x.tolist() == [[6, 0], [6, 2], [7, 0], [6, 0], [8, 0], [8, 0]]
    assert graph.edge_attr[::2].tolist() == [[0, 0], [0, 0], [0, 0], [1, 0], [0, 0]]
    assert molecule_graph("F/C=C/F").edge_attr[:, 1].tolist() == [1, 1, 0, 0, 1, 1]
    assert molecule_graph("*").x.tolist() == [[0, 0]]


@pytest.mark.parametrize("wrong", ["", "   ", "ethanol", None, "C(", "CC>>CO"])
def test_what_is_no_molecule_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is not a SMILES of a molecule"):
        molecule_graph(wrong)


def test_a_layer_by_hand() -> None:
    """Two atoms and a bond: each reads (1 + e) times itself and ReLU(the other + the bond), through the MLP."""
    torch.manual_seed(0)
    encoder = GINEncoder(ATOM_SIZES, BOND_SIZES, layers=1, hidden=4).eval()
    with torch.no_grad():
        encoder.layers[0].eps.fill_(0.5)
        out = encoder(side_by_side([molecule_graph("C=O")]))
        atom, chirality = (table.weight for table in encoder.atom_tables)
        carbon, oxygen = atom[6] + chirality[0], atom[8] + chirality[0]
        double = encoder.bond_tables[0][0].weight[1] + encoder.bond_tables[0][1].weight[0]
        for row, (own, other) in enumerate([(carbon, oxygen), (oxygen, carbon)]):
            expected = encoder.layers[0].nn(1.5 * own + (other + double).relu())
            torch.testing.assert_close(out[row], encoder.norms[0](expected[None])[0])


@pytest.mark.parametrize("sharing", ["tied", "untied", "soft"])
def test_unique_molecules_give_what_every_occurrence_gives(sharing: str) -> None:
    module, inputs = make(sharing), pair_inputs(PAIRS, GRAPHS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        once = module(inputs)
        module.unique = False
        torch.testing.assert_close(module(inputs), once, atol=1e-5, rtol=1e-5)
    assert once.shape == (8, 3, 8)
    assert len(inputs["molecule"].unique()) == 3


def test_a_molecule_does_not_see_its_neighbours_in_the_batch() -> None:
    module = make()
    together, alone = module(pair_inputs(PAIRS, GRAPHS)), module(pair_inputs(PAIRS[2:3], GRAPHS))
    torch.testing.assert_close(together[4:6], alone, atol=1e-5, rtol=1e-5)


def test_sharing_starts_equal_and_then_differs() -> None:
    inputs = pair_inputs([("CCO", "CCO")], GRAPHS)
    start = {sharing: make(sharing)(inputs) for sharing in ("tied", "untied", "soft")}
    for vectors in start.values():
        torch.testing.assert_close(vectors, start["tied"])
        torch.testing.assert_close(vectors[0], vectors[1])
    for sharing in ("tied", "untied", "soft"):
        module = make(sharing).train()
        (module(inputs)[0] * torch.randn(3, 8)).sum().backward()  # a loss of the first role only
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        first, second = module.eval()(inputs)
        assert torch.allclose(first, second) == (sharing == "tied")


def test_attention_sums_to_one_over_the_atoms_and_their_mean() -> None:
    weights = make().attention(side_by_side([GRAPHS["CCO"], GRAPHS["O"]]))
    assert weights.shape == (2, 3, 4)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3))
    assert (weights[1, :, 2:] == 0).all()


def test_bad_options_and_features_are_refused() -> None:
    with pytest.raises(ValueError, match="'tied', 'untied' or 'soft'"):
        make("half")
    graph = molecule_graph("CO")
    graph.x[0, 0] = 400
    with pytest.raises(ValueError, match="outside the"):
        make()(pair_inputs([("a", "a")], {"a": graph}))
