from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from predilect.tokenization import PromptSet, PromptTemplate, encode_answers
from predilect.tokenization.wording import DOMAINS, TASKS

TEMPLATE = PromptTemplate("Seen {num_history}: {history}. One of {num_candidates}: {candidates}.")
VALUES = {"history": ["Heat", "Ran", "Big"], "candidates": ["Alien", "Jaws"]}


def test_render_joins_lists_and_counts_them() -> None:
    assert TEMPLATE.render(**VALUES) == "Seen 3: Heat; Ran; Big. One of 2: Alien; Jaws.\nAnswer:"
    assert TEMPLATE.slots == {"history", "candidates"}


def test_empty_list_has_its_wording_and_values_may_hold_braces() -> None:
    text = TEMPLATE.render(history=[], candidates=["{odd}", "100%"])
    assert text == "Seen 0: nothing yet. One of 2: {odd}; 100%.\nAnswer:"


def test_double_braces_are_braces_also_after_fill() -> None:
    template = PromptTemplate("a {{b}} {word} {history}").fill({"word": "{w}"})
    assert template.render(history="x").startswith("A {b} {w} x")


def test_system_text_comes_first() -> None:
    assert PromptTemplate("Go: {x}", system="Be brief.", cue="A:").render(x="y") == "Be brief.\nGo: y\nA:"


@pytest.mark.parametrize("text", ["{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}"])
def test_a_slot_must_be_a_plain_name(text: str) -> None:
    with pytest.raises(ValueError, match="plain name in braces"):
        PromptTemplate(text)


def test_unknown_and_missing_slots_are_named() -> None:
    with pytest.raises(KeyError, match="no slot titles"):
        TEMPLATE.render(**VALUES, titles=["x"])
    with pytest.raises(KeyError, match="candidates has no value"):
        TEMPLATE.render(history=[])
    with pytest.raises(KeyError, match="counts a list"):
        TEMPLATE.render(history="Heat", candidates=["Alien"])


def test_encode_equals_the_rendered_text_and_training_equals_inference(tokenizer: Any) -> None:
    trained = TEMPLATE.encode(tokenizer, VALUES, answer="Jaws")
    asked = TEMPLATE.encode(tokenizer, VALUES)
    assert trained.prompt_ids == asked.prompt_ids == tokenizer.encode(TEMPLATE.render(**VALUES))
    assert asked.answer_ids == []
    assert trained.answer_ids[-1] == tokenizer.eos_token_id
    assert trained.input_ids == trained.prompt_ids + trained.answer_ids
    assert trained.labels == [-100] * len(trained.prompt_ids) + trained.answer_ids
    assert tokenizer.decode(trained.input_ids, skip_special_tokens=True).endswith("Answer: Jaws")


def test_bos_is_the_tokenizers_own_habit_unless_asked_for(tokenizers: dict[str, Any]) -> None:
    plain, llama = tokenizers["byte-level"], tokenizers["sentencepiece"]
    assert TEMPLATE.encode(plain, VALUES).prompt_ids[0] != plain.bos_token_id
    with_bos = TEMPLATE.encode(plain, VALUES, bos=True).prompt_ids
    assert with_bos == [plain.bos_token_id, *TEMPLATE.encode(plain, VALUES).prompt_ids]
    assert TEMPLATE.encode(llama, VALUES).prompt_ids.count(llama.bos_token_id) == 1
    assert llama.bos_token_id not in TEMPLATE.encode(llama, VALUES, bos=False).prompt_ids


def test_answers_after_a_plain_prompt_start_with_exactly_one_space(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        ids = encode_answers(tokenizer, ["Heat"])[0]
        pieces = "".join(tokenizer.convert_ids_to_tokens(ids[:-1]))
        assert pieces.replace("▁", " ").replace("Ġ", " ") == " Heat"
    without = encode_answers(tokenizers["byte-level"], ["Heat"], leading_space=False)[0]
    assert tokenizers["byte-level"].decode(without[:-1]) == "Heat"


def test_history_shrinks_by_whole_titles_from_the_left(tokenizer: Any) -> None:
    values = {"history": [f"The Matrix {i}" for i in range(12)], "candidates": ["Alien", "Jaws"]}
    full = TEMPLATE.encode(tokenizer, values, answer="Jaws")
    assert full.kept == 12
    bare = len(TEMPLATE.encode(tokenizer, {**values, "history": []}, answer="Jaws").input_ids)
    for max_length in range(bare, len(full.input_ids)):
        cut = TEMPLATE.encode(tokenizer, values, answer="Jaws", max_length=max_length)
        kept = values["history"][12 - cut.kept :]
        assert cut.prompt_ids == tokenizer.encode(TEMPLATE.render(history=kept, candidates=values["candidates"]))
        assert cut.answer_ids == full.answer_ids
        assert len(cut.input_ids) <= max_length
        more = TEMPLATE.encode(tokenizer, {**values, "history": values["history"][11 - cut.kept :]}, answer="Jaws")
        assert len(more.input_ids) > max_length  # nothing was dropped needlessly


def test_reserve_leaves_room_for_a_generated_answer(tokenizer: Any) -> None:
    full = TEMPLATE.encode(tokenizer, VALUES)
    assert TEMPLATE.encode(tokenizer, VALUES, max_length=len(full.prompt_ids) + 5, reserve=5).kept == 3
    assert TEMPLATE.encode(tokenizer, VALUES, max_length=len(full.prompt_ids) + 4, reserve=5).kept == 2


def test_a_prompt_too_long_without_history_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"without any history.*max_length is 5"):
        TEMPLATE.encode(tokenizer, VALUES, answer="Jaws", max_length=5)
    with pytest.raises(ValueError, match="max_length is 3"):
        PromptTemplate("Name the answer to {question}").encode(tokenizer, {"question": "what?"}, max_length=3)


def test_chat_template(chat_tokenizer: Any) -> None:
    template = PromptTemplate("Seen {history}.", system="Be brief.")
    encoded = template.encode(chat_tokenizer, {"history": ["Heat"]}, answer="Ran", chat=True)
    text = "<|system|>\nBe brief.</s>\n<|user|>\nSeen Heat.</s>\n<|assistant|>\n"
    assert encoded.prompt_ids == chat_tokenizer.encode(text)
    assert chat_tokenizer.decode(encoded.answer_ids) == "Ran</s>"
    short = template.encode(
        chat_tokenizer, {"history": ["Heat"] * 9}, chat=True, max_length=len(encoded.prompt_ids) + 4
    )
    assert 1 <= short.kept < 9


def test_contradicting_options_are_refused(tokenizer: Any, chat_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no chat template"):
        TEMPLATE.encode(tokenizer, VALUES, chat=True)
    with pytest.raises(ValueError, match="brings its own BOS"):
        TEMPLATE.encode(chat_tokenizer, VALUES, chat=True, bos=True)
    with pytest.raises(ValueError, match="reserve=3"):
        TEMPLATE.encode(tokenizer, VALUES, answer="Jaws", reserve=3)


def test_bad_answers_are_named(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"blank \(got ' ' at position 1\)"):
        encode_answers(tokenizer, ["Heat", " "])
    with pytest.raises(ValueError, match="holds the end token '</s>'"):
        encode_answers(tokenizer, ["Heat</s>"])


def test_missing_special_tokens_are_named(own_tokenizer: Any) -> None:
    own_tokenizer.bos_token = None
    with pytest.raises(ValueError, match="no bos_token"):
        TEMPLATE.encode(own_tokenizer, VALUES, bos=True)
    own_tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no eos_token"):
        encode_answers(own_tokenizer, ["Heat"])


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("task", TASKS)
def test_own_templates_render_in_every_domain_and_state_counted_numbers_only(domain: str, task: str) -> None:
    prompts = PromptSet.for_domain(domain, task=task)
    values = {name: ["one", "two", "three"] for name in prompts.slots}
    for template in prompts:
        text = template.render(**values)
        assert "{" not in text
        assert text[0].isupper()
        assert not set("0124567890") & set(text)  # the only number is the count, 3
    assert prompts.slots == ({"history", "candidates"} if task == "candidates" else {"history"})


def test_choice_is_deterministic_and_uses_all_templates() -> None:
    prompts = PromptSet.for_domain("book")
    chosen = [prompts.choose(row, seed=3) for row in range(200)]
    assert chosen == [prompts.choose(row, seed=3) for row in range(200)]
    assert set(chosen) == set(prompts)
    assert chosen != [prompts.choose(row, seed=4) for row in range(200)]


def test_prompt_set_survives_saving(tmp_path: Path) -> None:
    prompts = PromptSet((PromptTemplate("{items} é {history}", separator=" | "),), {"items": "films"})
    prompts.save(tmp_path / "p.json")
    assert PromptSet.load(tmp_path / "p.json") == prompts


def test_bad_prompt_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one template"):
        PromptSet(())
    with pytest.raises(ValueError, match="must need the same values"):
        PromptSet((PromptTemplate("{a}"), PromptTemplate("{b}")))
    with pytest.raises(ValueError, match="got 'opera'"):
        PromptSet.for_domain("opera")
    with pytest.raises(ValueError, match="got 'rank'"):
        PromptSet.for_domain("movie", task="rank")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="not a prompt set"):
        PromptSet.load(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(json.dumps({"words": {}, "templates": [{"text": "x", "colour": 1}]}))
    with pytest.raises(ValueError, match="colour"):
        PromptSet.load(tmp_path / "b.json")
