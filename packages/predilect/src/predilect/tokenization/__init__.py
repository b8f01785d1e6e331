"""From rows of data to token ids: prompts, soft tokens, shared-prefix packing, title tries."""

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.tokenization.packing import (
        SharedPrefixCollator,
        pack_shared_prefix,
    )
    from predilect.tokenization.prompts import EncodedPrompt, PromptSet, PromptTemplate, encode_answers
    from predilect.tokenization.soft_tokens import SoftTokens
    from predilect.tokenization.trie import TitleTrie

__all__ = [
    "EncodedPrompt",
    "PromptSet",
    "PromptTemplate",
    "SharedPrefixCollator",
    "SoftTokens",
    "TitleTrie",
    "encode_answers",
    "pack_shared_prefix",
]

_HOMES = {
    "packing": (
        "SharedPrefixCollator",
        "pack_shared_prefix",
    ),
    "prompts": ("EncodedPrompt", "PromptSet", "PromptTemplate", "encode_answers"),
    "soft_tokens": ("SoftTokens",),
    "trie": ("TitleTrie",),
}

__getattr__, __dir__ = attach(
    __name__, {name: f"predilect.tokenization.{module}" for module, names in _HOMES.items() for name in names}
)
