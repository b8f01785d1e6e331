from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

SMALL: dict[str, Any] = {
    "graph_layers": 2,
    "graph_width": 16,
    "queries": 2,
    "query_layers": 2,
    "query_width": 16,
    "query_heads": 2,
    "dropout": 0.0,
    "dtype": "float32",
    "batch_size": 4,
    "smiles_tokens": 24,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small trees and networks are faster on one thread than on several that wait for each other."""
    import sklearn.ensemble  # its OpenMP is loaded with it  # noqa: F401

    with threadpool_limits(1):
        yield


@pytest.fixture
def run_command() -> Callable[..., Result]:
    def start(app: Any, *arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})

    return start


@pytest.fixture(scope="session")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny models of both kinds on disk, with a tokenizer whose tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(words)}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512}
    built: dict[str, Any] = {
        "llama": (LlamaForCausalLM, LlamaConfig(intermediate_size=48, tie_word_embeddings=True, **small, **ids)),
        "opt": (OPTForCausalLM, OPTConfig(ffn_dim=48, word_embed_proj_dim=32, **small, **ids)),
    }
    folders = {}
    for kind, (model, config) in built.items():
        folder: Path = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        lm = model(config)
        for parameter in lm.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1)
        lm.tie_weights()
        lm.save_pretrained(folder)
        tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folder)
        folders[kind] = str(folder)
    return folders
