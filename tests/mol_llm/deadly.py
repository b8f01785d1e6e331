"""Work that kills its process at some SMILES, as a crash of RDKit would; a module that worker processes can import."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mol_llm.preparing import Prepared, prepare_here

DEADLY = ("[Xe]", "[Kr]")


def deadly(smiles: Sequence[str], canonical: bool) -> Prepared:
    if any(text in DEADLY for text in smiles):
        os._exit(139)
    return prepare_here(smiles, canonical)
