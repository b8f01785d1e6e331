"""A tiny language model that can write lists of titles, and a sequence model that knows the planted order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llm_rec.interpreter.tasks import TASKS
from predilect.modeling.packed import label_logps
from predilect.recommenders import SASRecRecommender
from predilect.training import AnswerCollator

LETTERS = "abcdefghijklmnopqrst"


@pytest.fixture(scope="session")
def sasrec(letter_splits: Any) -> SASRecRecommender:
    return SASRecRecommender(hidden_size=16, max_epochs=20, batch_size=32, dropout=0.0, learning_rate=1e-2).fit(
        letter_splits
    )


@pytest.fixture(scope="session")
def listing_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers the prompts where a letter stands at the soft tokens: an adapter has to find the letters' embeddings.

    A frozen model with random weights could not be steered to write anything in particular.
    """
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    rows = []
    for last in range(20):
        letters = [LETTERS[(last - back) % 20] for back in (4, 3, 2, 1, 0)]
        asked = {
            "recovery": ({"state": letters[4]}, "; ".join(letters)),
            "residual": ({"before": letters[3], "after": letters[4]}, letters[4]),
            "item": ({"vector": letters[4]}, letters[4]),
        }
        for task, (values, answer) in asked.items():
            encoded = TASKS[task].prompts("movie")[0].encode(tokenizer, values, answer=answer)
            rows.append({"prompt_ids": encoded.prompt_ids, "answer_ids": encoded.answer_ids, "row": len(rows)})
    collate = AnswerCollator(tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=250)
    for _ in range(250):
        chosen = torch.randperm(len(rows))[:20]
        batch = collate([rows[i] for i in chosen])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        loss = -label_logps(model, batch["labels"], **inputs).logps.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    folder = tmp_path_factory.mktemp("listing")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
