"""A tiny language model: seconds on a CPU, no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def tiny_language_model(
    folder: str | Path | None = None,
    *,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """A Llama of two layers and 32 dimensions with random weights, and a tokenizer that reads bytes.

    Weights are large enough that scores differ. Padding is on the left, "<pad>" and "</s>" are ids 0 and 1, and there
    is no BOS.

    Args:
        folder: where both are saved as `load_causal_lm` reads them; None: nowhere.
        special_tokens: further ones, which get the next ids.
        chat_template: of the tokenizer.
        seed: of the weights.

    Returns:
        The model, in eval mode, and its tokenizer.

    Examples:
        >>> model, tokenizer = tiny_language_model()
        >>> tokenizer.decode(tokenizer.encode("Heat"))
        'Heat'
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "</s>", *special_tokens]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", padding_side="left"
    )
    tokenizer.chat_template = chat_template
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    if folder is not None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return model, tokenizer
