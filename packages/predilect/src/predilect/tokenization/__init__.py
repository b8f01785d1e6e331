"""From rows of data to token ids: prompts, soft tokens, shared-prefix packing, title tries."""

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.tokenization.packing import (
        SharedPrefixCollator,
        additive_mask,
        check_packable,
        completion_logps,
        label_logps,
        pack_shared_prefix,
        packed_inputs,
        shared_prefix_mask,
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
    "additive_mask",
    "check_packable",
    "completion_logps",
    "encode_answers",
    "label_logps",
    "pack_shared_prefix",
    "packed_inputs",
    "shared_prefix_mask",
]

_HOMES = {
    "packing": (
        "SharedPrefixCollator",
        "additive_mask",
        "check_packable",
        "completion_logps",
        "label_logps",
        "pack_shared_prefix",
        "packed_inputs",
        "shared_prefix_mask",
    ),
    "prompts": ("EncodedPrompt", "PromptSet", "PromptTemplate", "encode_answers"),
    "soft_tokens": ("SoftTokens",),
    "trie": ("TitleTrie",),
}

__getattr__, __dir__ = attach(
    __name__, {name: f"predilect.tokenization.{module}" for module, names in _HOMES.items() for name in names}
)
