"""Small tokenizers of the two kinds that language models use, trained here: byte-level BPE and sentencepiece."""

from __future__ import annotations

import io
from typing import Any

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "A viewer watched these movies, oldest first: The Matrix; Heat; The Heat; Alien; Aliens.",
    "Which one of these movies comes next? Reply with its title alone. Answer: Star Wars",
    "Amélie; Ran; Big; Jaws; The Empire Strikes Back; Return of the Jedi; nothing yet",
    "History of a reader: options, name the book to read next by its title.",
] * 5
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def byte_level() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def sentence_piece() -> Any:
    """Puts BOS before a text and a space before its first word, as Llama-2's tokenizer does."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=proto,
        vocab_size=380,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    pieces = [(trained.id_to_piece(i), trained.get_score(i)) for i in range(trained.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    metaspace = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), metaspace])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    assert wrapped("The Matrix (1999)").input_ids[1:] == trained.encode("The Matrix (1999)")
    return wrapped


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """Read only: tests that add tokens make their own."""
    made = {"byte-level": byte_level(), "sentencepiece": sentence_piece()}
    for tokenizer in made.values():
        tokenizer.padding_side = "left"
    return made


@pytest.fixture(params=["byte-level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Any]) -> Any:
    return tokenizers[request.param]


@pytest.fixture
def own_tokenizer() -> Any:
    return byte_level()


@pytest.fixture
def chat_tokenizer() -> Any:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.fixture(scope="session")
def tiny_lm() -> LlamaForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # far from uniform, so that beams differ
        torch.nn.init.normal_(parameter, std=0.2)
    return model
