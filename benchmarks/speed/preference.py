"""Training steps of preference losses with shared prompts, against TRL's DPOTrainer and against repeated prompts.

    python -m benchmarks.speed.preference [--quick] [--output FOLDER]

A step is forward, reference pass, backward and AdamW, with LoRA on all linear layers, without gradient checkpointing,
in bfloat16 where the machine computes it and else in float32: the result says which. K = 1: HH pairs against
`trl.DPOTrainer`, the same batches. K = 3, 7, 15: Last.fm prompts with 20 candidates against the published procedure of
S-DPO, written plainly: the prompt repeated for each of the K + 1 answers, rows padded, logits of all positions in
float32. Batches of 4, 4, 2 examples give it 16, 32, 32 rows. The token ratio counts positions that pass through the
model, the padding of both sides included. Both sides start from the same adapter and must arrive at the same first
loss in float32; bfloat16 alone moves it by up to a third (rewards are small differences of large sums, beta is 1).

Memory is that of one more step once the optimizer's state is there: most bytes of tensors alive at once above what was
alive before, from PyTorch's allocation records. It is not the resident memory of the process, which the allocator and
whatever else runs blur.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import trl
from benchmarks import _preferences as shared
from benchmarks.speed import _results
from datasets import Dataset
from peft import get_peft_model

from pref_losses import PreferenceConfig, PreferenceTrainer, SoftmaxDPOConfig, SoftmaxDPOTrainer
from pref_losses.scoring import PreferenceCollator

Batch = Mapping[str, torch.Tensor]
LEARNING_RATE = 1e-4
REPEATS = 3


class Side:
    """One side of a comparison: `side()` takes one optimizer step on the next batch and keeps the loss before it."""

    def __init__(self, model: Any, loss_backward: Callable[[Batch], torch.Tensor], batches: Sequence[Batch]) -> None:
        weights = [p for p in model.parameters() if p.requires_grad]
        generator = torch.Generator().manual_seed(0)
        with (
            torch.no_grad()
        ):  # the same adapter on both sides, away from the reference: equal first losses say something
            for weight in weights:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
        self.optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
        self.loss_backward = loss_backward
        self.next_batch: Iterator[Batch] = itertools.cycle(batches)
        self.losses: list[float] = []

    def __call__(self) -> None:
        loss = self.loss_backward(next(self.next_batch))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(float(loss))


class Case(NamedTuple):
    """Two sides on the same examples, and the positions that pass through their models in all batches."""

    ours: Side
    baseline: Side
    positions: int
    baseline_positions: int

    @property
    def token_ratio(self) -> float:
        return self.baseline_positions / self.positions


def trainer_side(trainer: Any, size: int) -> tuple[Side, list[Batch]]:
    """A trainer's own training step on its rows in their order, `size` at a time."""
    rows = trainer.train_dataset
    batches = [
        trainer.data_collator([rows[j] for j in range(i, min(i + size, len(rows)))]) for i in range(0, len(rows), size)
    ]
    trainer.current_gradient_accumulation_steps = 1  # set by `train`, which would also shuffle
    model = trainer.accelerator.prepare_model(trainer.model)
    return Side(model, lambda batch: trainer.training_step(model, dict(batch)), batches), batches


def published_side(batches: Sequence[Batch], quick: bool) -> Side:
    """S-DPO as published: K + 1 rows an example, whole sequences of logits in float32."""
    model = get_peft_model(shared.language_model(quick=quick)[0], shared.lora()).to(shared.DEVICE).train()

    def logps(batch: Batch) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        labels, logits = batch["labels"][:, 1:], logits[:, :-1].to(torch.float32)
        scored = labels != -100
        tokens = logits.log_softmax(-1).gather(2, labels.masked_fill(~scored, 0).unsqueeze(2)).squeeze(2)
        sums: torch.Tensor = (tokens * scored).sum(1).view(len(batch["answer_mask"]), -1)
        return sums

    def loss_backward(batch: Batch) -> torch.Tensor:
        batch = {name: value.to(shared.DEVICE) for name, value in batch.items()}
        with shared.autocast(quick=quick):
            policy = logps(batch)
            with torch.no_grad(), model.disable_adapter():
                reference = logps(batch)
        rewards = policy - reference  # beta = 1
        differences = torch.logsumexp(rewards[:, 1:] - rewards[:, :1], 1)
        loss = -torch.nn.functional.logsigmoid(-differences).mean()
        torch.autograd.backward(loss)
        return loss.detach()

    return Side(model, loss_backward, batches)


def positions_of(batches: Sequence[Batch]) -> int:
    return sum(batch["input_ids"].numel() for batch in batches)


def against_trl(rows: Dataset, size: int, folder: str, quick: bool) -> Case:
    sides: list[Side] = []
    positions: list[int] = []
    for trainer_class, config in ((PreferenceTrainer, PreferenceConfig), (trl.DPOTrainer, trl.DPOConfig)):
        model, tokenizer = shared.language_model(quick=quick)
        options = shared.trainer_options(folder, quick=quick, max_length=512, per_device_train_batch_size=size)
        trainer = trainer_class(
            model,
            args=config(**options),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=shared.lora(),
        )
        side, batches = trainer_side(trainer, size)
        sides.append(side)
        positions.append(positions_of(batches))
    return Case(sides[0], sides[1], positions[0], positions[1])


def against_published(rows: Dataset, size: int, folder: str, quick: bool) -> Case:
    model, tokenizer = shared.language_model(quick=quick)
    options = shared.trainer_options(folder, quick=quick, max_length=512, per_device_train_batch_size=size)
    trainer = SoftmaxDPOTrainer(
        model,
        args=SoftmaxDPOConfig(**options),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=shared.lora(),
    )
    ours, batches = trainer_side(trainer, size)
    padded = PreferenceCollator(tokenizer.pad_token_id, share_prefix=False)
    ready = trainer.train_dataset
    repeated = [padded([ready[j] for j in range(i, i + size)]) for i in range(0, len(ready), size)]
    baseline = published_side(repeated, quick)
    return Case(ours, baseline, positions_of(batches), positions_of(repeated))


def checked(make: Callable[[], Case]) -> Case:
    """The case, once both of its sides gave the same first loss in float32."""
    with shared.float32():
        case = make()
        case.ours()
        case.baseline()
    first, other = case.ours.losses[0], case.baseline.losses[0]
    if abs(first - other) > 1e-3 * (1 + abs(other)):
        raise SystemExit(f"first loss {first:.4f} on our side, {other:.4f} on the other: not the same work")
    return make()


def compare(name: str, case: Case, *, goal: float, baseline_is: str, quick: bool) -> dict[str, Any]:
    repeats = 1 if quick else REPEATS
    seconds = _results.time_in_turns({"ours": case.ours, "baseline": case.baseline}, repeats=repeats)
    print(f"{name}: {seconds['ours']:.3g} s against {seconds['baseline']:.3g} s", flush=True)
    return _results.row(
        f"{name}, token ratio {case.token_ratio:.2f}",
        ours=seconds["ours"],
        baseline=seconds["baseline"],
        unit="s",
        goal=goal,
        baseline_is=baseline_is,
    )


def memory(name: str, case: Case, *, baseline_is: str) -> dict[str, Any]:
    for side in (case.ours, case.baseline):
        if not side.losses:
            side()  # the optimizer's state
    ours, baseline = (_results.peak_extra_bytes(side) / 2**20 for side in (case.ours, case.baseline))
    print(f"{name}: {ours:.4g} MiB against {baseline:.4g} MiB", flush=True)
    return _results.row(name, ours=ours, baseline=baseline, unit="MiB", goal=1, baseline_is=baseline_is)


def growth(curve: list[tuple[Case, dict[str, Any]]]) -> list[dict[str, Any]]:
    """How much more memory the last point of a curve takes than the first: against its positions, and against the
    other side.

    Positions of the answers weigh more than those of the prompt, because only they have logits.
    """
    (few, first), (many, last) = curve[0], curve[-1]
    name, ours = "memory of one example, K = 15 over K = 1", last["ours"] / first["ours"]
    against = {
        "growth of P + (K + 1) C": (many.positions / few.positions, 0.9),
        "prompt repeated K + 1 times": (last["baseline"] / first["baseline"], 4),
    }
    return [
        _results.row(name, ours=ours, baseline=baseline, unit="times", goal=goal, baseline_is=what)
        for what, (baseline, goal) in against.items()
    ]


def hh_rows(count: int, quick: bool) -> Dataset:
    """The first pairs that need no truncation at 512 tokens."""
    pairs = shared.hh_pairs(quick=quick)
    tokenizer = shared.language_model(quick=quick)[1]
    fits = [len(tokenizer(r["prompt"] + max(r["chosen"], r["rejected"], key=len))["input_ids"]) < 500 for r in pairs]
    return pairs.select([i for i, fit in enumerate(fits) if fit][:count])


def with_negatives(choices: Dataset, negatives: int) -> Dataset:
    return choices.map(lambda row: {"rejected": row["rejected"][:negatives]})


def measure(given: _results.Options, folder: str) -> list[dict[str, Any]]:
    quick, turns = given.quick, 1 + REPEATS
    hh = hh_rows(4 * turns, quick)
    pairs = checked(lambda: against_trl(hh, 4, folder, quick))
    trl_is = "trl.DPOTrainer"
    rows = [
        compare("K = 1, 4 HH pairs", pairs, goal=2, baseline_is=trl_is, quick=quick),
        memory("K = 1, 4 HH pairs, peak extra memory", pairs, baseline_is=trl_is),
    ]
    del pairs
    choices = shared.artist_choices(quick=quick).select(range(16))
    repeated_is = "prompt repeated K + 1 times"
    for negatives, size in ((3, 4), (7, 4), (15, 2)):
        some = with_negatives(choices.select(range(size * turns)), negatives)
        case = checked(partial(against_published, some, size, folder, quick))
        goal = 8 if negatives == 15 else round(0.95 * case.token_ratio, 2)
        name = f"K = {negatives}, {size} Last.fm prompt{'s' if size > 1 else ''}"
        rows.append(compare(name, case, goal=goal, baseline_is=repeated_is, quick=quick))
    curve = []
    for negatives in (1, 3, 7, 15):
        case = against_published(with_negatives(choices.select([0]), negatives), 1, folder, quick)
        name = (
            f"memory of one example, K = {negatives}: {case.positions} positions, repeated {case.baseline_positions}"
        )
        curve.append((case, memory(name, case, baseline_is=repeated_is)))
    return [*rows, *(row for _, row in curve), *growth(curve)]


def main() -> None:
    given = _results.options("Speed and memory of training steps of preference losses.")
    torch.set_num_threads(1 if given.quick else 2)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, folder)
    _results.write(
        "preference",
        rows,
        data="HH helpful-base test pairs that fit 512 tokens; Last.fm candidate prompts of S-DPO's sample; "
        f"SmolLM2-135M-Instruct in {shared.DTYPE}, LoRA r = 8 on all linear layers, AdamW, no gradient checkpointing; "
        "medians of steps in turns; memory of tensors by PyTorch's profiler",
        given=given,
        packages=("pref-losses", "trl", "transformers", "peft"),
    )


if __name__ == "__main__":
    main()
