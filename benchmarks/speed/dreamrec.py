"""Sampling, training and ranking of DreamRec against the procedure that its paper published.

    python -m benchmarks.speed.dreamrec [--quick] [--output FOLDER]

The baseline is the published procedure, written plainly. Sampling takes all T steps of DDPM in batches of 100
histories, and runs the denoiser twice a step over batches: with the states and with the null state; the posterior's
coefficients are gathered for every row. A training step draws its rows from a data frame, turns lists into tensors,
encodes all positions to take one, and has heads in the optimizer that nothing uses. Ours is what a user calls:
`DreamRecModel.scores`; a step of `DreamRecModel` on rows cut from tensors, with the trainer's fused AdamW; and, as a
row of its own, three epochs of `DreamRecTrainer` from start to end, with neither validation nor checkpoints.

Both sides have the weights of one `DreamRec` with the paper's settings, trained briefly. Before anything is timed,
they are compared: states, oracle items with the same noise, the loss and its gradient. Dropout stays on in the
official evaluation; here neither side has it. The few-step sampler counts with the fewest steps of a list whose
ndcg@20 on the validation rows is not below that of the published sampler; the case names both. (--quick takes the
best of the list, since its model learns nothing.)

Memory: the item table of a million synthetic items and all that ranking 256 histories takes beside it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import datasets
import pandas as pd
import pyarrow as pa
import torch
from benchmarks import _preferences as shared
from benchmarks.speed import _results
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EarlyStoppingCallback, set_seed

from predilect.data import RecDataset, SequenceSplits, load
from predilect.data.rows import SequenceRows
from predilect.evaluation.ranking import rank_metric, target_ranks, top_items
from predilect.presets import Presets
from predilect.training import NextItemRows, next_item_arguments
from seqrec_diffusion import DreamRec, DreamRecConfig, DreamRecModel, Sampling, betas
from seqrec_diffusion.denoiser import sinusoids
from seqrec_diffusion.noise import row_keys, row_noise
from seqrec_diffusion.recommender import DreamRecTrainer

EVALUATED_AT_ONCE = 100
BATCH = 256
LISTED = 20
STEPS = (2, 5, 10, 20, 50, 100)
EPOCHS = 3  # of the trainer in a turn: its start costs as much as tens of steps
REPEATS = 5


class Sizes(NamedTuple):
    epochs: int
    timesteps: int
    width: int
    guidance: float
    users: int  # sampled in a turn
    train_steps: int  # in a turn; an epoch
    catalogue: int
    chunk: int


FULL = Sizes(20, 500, 64, 4.0, users=1000, train_steps=240, catalogue=1_000_000, chunk=65_536)
QUICK = Sizes(2, 20, 16, 1.0, users=120, train_steps=2, catalogue=2000, chunk=512)


class Published(nn.Module):
    """The paper's network and procedures, with the weights of one of our models; histories are padded on the right."""

    def __init__(self, model: DreamRecModel, guidance: float) -> None:
        super().__init__()
        ours, config = copy.deepcopy(model), model.config
        width = config.hidden_size
        self.timesteps, self.null_probability, self.guidance = config.timesteps, config.null_probability, guidance
        self.encoder, self.denoiser = ours.encoder, ours.denoiser
        self.null_state, self.empty_state = ours.null_state, ours.empty_state
        self.unused = nn.ModuleList(
            [
                nn.Linear(width, config.num_items),
                nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
                nn.Sequential(nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
            ]
        )
        beta = betas(config.schedule, config.timesteps).double()
        remaining = torch.cumprod(1 - beta, 0)
        before = F.pad(remaining[:-1], (1, 0), value=1.0)
        self.signal, self.noise = remaining.sqrt().float(), (1 - remaining).sqrt().float()
        self.of_clean = (beta * before.sqrt() / (1 - remaining)).float()
        self.of_noisy = ((1 - before) * (1 - beta).sqrt() / (1 - remaining)).float()
        self.deviation = (beta * (1 - before) / (1 - remaining)).sqrt().float()

    def states(self, history: Tensor, length: Tensor) -> Tensor:
        layers = self.encoder
        mask = (history != 0).unsqueeze(-1)
        inputs = layers.dropout(layers.items(history) + layers.positions.weight) * mask
        asking = layers.input_norm(inputs)
        products = layers.query(asking) @ layers.key(inputs).mT / inputs.shape[-1] ** 0.5
        future = torch.ones(products.shape[1:], dtype=torch.bool).triu(1)
        weights = products.masked_fill(~mask.mT, -1e9).masked_fill(future, -1e9).softmax(-1) * mask
        normed = layers.attention_norm(asking + layers.dropout(weights) @ layers.value(inputs))
        fed = layers.dropout(layers.outer(F.relu(layers.inner(normed))))
        all_states = layers.output_norm(layers.inner_norm(normed + fed) * mask)
        last = (length - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, all_states.shape[2])
        return torch.where(length[:, None] == 0, self.empty_state, all_states.gather(1, last).squeeze(1))

    def denoise(self, noisy: Tensor, states: Tensor, timesteps: Tensor) -> Tensor:
        time = self.denoiser.time(sinusoids(timesteps, noisy.shape[1]))
        clean: Tensor = self.denoiser.input(torch.cat((noisy, states, time), dim=1))
        return clean

    def sample(self, states: Tensor, noise: Callable[[int], Tensor] | None = None) -> Tensor:
        """Oracle items (B, d); `noise` of the number of the step replaces the random numbers, 0 being the start."""
        draw = noise or (lambda _: torch.randn_like(states))
        x, null = draw(0), self.null_state.expand_as(states)
        for t in reversed(range(self.timesteps)):
            times = torch.full((len(x),), t)
            with_state, without = self.denoise(x, states, times), self.denoise(x, null, times)
            clean = (1 + self.guidance) * with_state - self.guidance * without
            x = self.of_clean[times, None] * clean + self.of_noisy[times, None] * x
            if t:
                x = x + self.deviation[times, None] * draw(self.timesteps - t)
        return x

    @torch.no_grad()
    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        return self.sample(self.states(history, length)) @ self.encoder.items.weight[1:].T

    def loss(self, rows: pd.DataFrame) -> Tensor:
        history, length = torch.tensor(rows["seq"].tolist()), torch.tensor(rows["len_seq"].tolist())
        clean, states = self.encoder.items(torch.tensor(rows["next"].tolist())), self.states(history, length)
        keep = (torch.rand(len(states), 1) >= self.null_probability).float()
        states = states * keep + self.null_state * (1 - keep)
        times = torch.randint(self.timesteps, (len(states),))
        noisy = self.signal[times, None] * clean + self.noise[times, None] * torch.randn_like(clean)
        return F.mse_loss(self.denoise(noisy, states, times), clean)


def right_padded(rows: SequenceRows) -> tuple[Tensor, Tensor]:
    """Histories with the padding moved to their right, and their lengths."""
    history = rows.histories()
    length = (history != 0).sum(1)
    columns = torch.arange(history.shape[1]) - length[:, None]
    return history.gather(1, columns % history.shape[1]), length


def data_frame(rows: SequenceRows) -> pd.DataFrame:
    history, length = right_padded(rows)
    return pd.DataFrame({"seq": history.tolist(), "len_seq": length.tolist(), "next": rows.target.tolist()})


def make_splits(quick: bool) -> SequenceSplits:
    """Zhihu's official split; quick: people who walk around a ring of items."""
    if not quick:
        return load(shared.DATA / "dreamrec-zhihu").split("official", max_history=10, min_history=0)
    events = [(user, (user * 7 + place) % 40) for user in range(120) for place in range(6)]
    log = pa.table({"user_id": [user for user, _ in events], "item_id": [item for _, item in events]})
    return RecDataset.from_raw(log, name="ring").split("leave_one_out", min_history=0)


class Sides:
    """Both sides of every comparison, for one trained model."""

    def __init__(self, splits: SequenceSplits, sizes: Sizes) -> None:
        self.splits, self.sizes = splits, sizes
        own = {
            "max_epochs": sizes.epochs,
            "patience": sizes.epochs,
            "hidden_size": sizes.width,
            "timesteps": sizes.timesteps,
            "guidance": sizes.guidance,
            "sampler": "ddim",
            "steps": min(20, sizes.timesteps),
        }
        self.recommender = DreamRec(**Presets("seqrec_diffusion.presets").read("zhihu")["set"] | own).fit(splits)
        self.model: DreamRecModel = self.recommender.model
        self.published = Published(self.model, sizes.guidance).eval()
        self.rows = splits.validation
        self.right = right_padded(self.rows)
        self.ddpm = Sampling(sampler="ddpm", steps=None, guidance=sizes.guidance)

    def few(self, steps: int) -> Sampling:
        return Sampling(sampler="ddim", steps=steps, guidance=self.sizes.guidance)

    def published_scores(self, start: int, stop: int) -> Tensor:
        return self.published.scores(*(part[start:stop] for part in self.right))

    @torch.inference_mode()
    def published_lists(self) -> list[Tensor]:
        users = min(self.sizes.users, len(self.rows))
        starts = range(0, users, EVALUATED_AT_ONCE)
        return [self.published_scores(i, min(users, i + EVALUATED_AT_ONCE)).topk(LISTED).indices for i in starts]

    def scores(self, sampling: Sampling, start: int, stop: int) -> Tensor:
        return self.model.scores(self.rows.histories(slice(start, stop)), sampling)

    @torch.inference_mode()
    def lists(self, sampling: Sampling) -> Tensor:
        return top_items(self.scores(sampling, 0, self.sizes.users), LISTED)

    @torch.inference_mode()
    def ndcg(self, scores: Callable[[int, int], Tensor], size: int) -> float:
        """ndcg@20 on all validation rows, nothing masked, as published."""
        starts = range(0, len(self.rows), size)
        ranks = [target_ranks(scores(i, i + size), self.rows.targets(slice(i, i + size))) for i in starts]
        return float(rank_metric(torch.cat(ranks).numpy(), f"ndcg@{LISTED}").mean())

    def check(self) -> None:
        """Stop where two sides do not give the same."""
        first = slice(EVALUATED_AT_ONCE)
        history, target = self.rows.histories(first), self.rows.targets(first)
        with torch.no_grad():
            states = self.published.states(*(part[:EVALUATED_AT_ONCE] for part in self.right))
            agree("states", self.model.states(history), states)
            keys = row_keys(history, self.ddpm.seed)
            plain = self.published.sample(states, lambda step: row_noise(keys, step, states.shape[1]))
        agree("oracle items", self.model.oracle(history, self.ddpm), plain)
        frame = data_frame(self.rows).iloc[:EVALUATED_AT_ONCE]
        torch.manual_seed(0)
        ours = self.model(history, target).loss
        torch.manual_seed(0)
        plain = self.published.loss(frame)
        agree("loss", ours.detach(), plain.detach())
        gradients = (
            torch.autograd.grad(loss, side.encoder.items.weight)[0]
            for loss, side in ((ours, self.model), (plain, self.published))
        )
        agree("gradient of the item table", *gradients)


def agree(what: str, ours: Tensor, other: Tensor) -> None:
    difference = float((ours - other).abs().max() / other.abs().max())
    if not difference < 1e-4:
        raise SystemExit(f"{what}: the sides differ by {difference:.3g} of the largest value")


def fewest_steps(sides: Sides, published: float) -> tuple[int, float]:
    """The fewest steps of `STEPS` with at least the published sampler's ndcg@20, and theirs."""
    found = {}
    for steps in (steps for steps in STEPS if steps <= sides.sizes.timesteps):
        found[steps] = value = sides.ndcg(partial(sides.scores, sides.few(steps)), 1024)
        print(f"validation ndcg@{LISTED}: {steps} steps of DDIM {value:.5f}, published {published:.5f}", flush=True)
        if value >= published:
            return steps, value
    if sides.sizes is FULL:
        raise SystemExit("no number of steps reaches the published sampler's ndcg: there is nothing to compare")
    return max(found.items(), key=lambda item: item[1])


def sampling_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    published = sides.ndcg(sides.published_scores, EVALUATED_AT_ONCE)
    steps, value = fewest_steps(sides, published)
    few = sides.few(steps)
    seconds = _results.time_in_turns(
        {
            "few": lambda: sides.lists(few),
            "ddpm": lambda: sides.lists(sides.ddpm),
            "published": sides.published_lists,
        },
        repeats=repeats,
    )
    users, timesteps = min(sides.sizes.users, len(sides.rows)), sides.sizes.timesteps
    is_published = f"published procedure, {timesteps} steps of DDPM"
    cases = [
        (f"sampling, {steps} steps of DDIM, validation ndcg@20 {value:.5f} ({published:.5f})", "few", 30),
        (f"sampling, {timesteps} steps of DDPM", "ddpm", 3),
    ]
    return [
        _results.row(
            case,
            ours=users / seconds[ours],
            baseline=users / seconds["published"],
            unit="users/s",
            goal=goal,
            baseline_is=is_published,
            lower_is_better=False,
        )
        for case, ours, goal in cases
    ]


def training_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    config, steps = sides.recommender.config, sides.sizes.train_steps
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    with tempfile.TemporaryDirectory() as folder:
        seconds = _results.time_in_turns(
            {
                "step": own_steps(sides, steps, options),
                "trainer": trainer_steps(sides, EPOCHS * steps, folder),
                "published": published_steps(sides, steps, options),
            },
            repeats=repeats,
        )
    seconds["trainer"] /= EPOCHS
    return [
        _results.row(
            case,
            ours=1000 * seconds[ours] / steps,
            baseline=1000 * seconds["published"] / steps,
            unit="ms",
            goal=1.5,
            baseline_is="published procedure",
        )
        for case, ours in (
            (f"training step, {BATCH} rows", "step"),
            (f"training step, {BATCH} rows, with all that the trainer does", "trainer"),
        )
    ]


def own_steps(sides: Sides, steps: int, options: dict[str, Any]) -> Callable[[], None]:
    model = copy.deepcopy(sides.model).train()
    rows = NextItemRows(sides.splits.train)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True, **options)

    def run() -> None:
        order = torch.randperm(len(rows))[: BATCH * steps]
        for some in torch.split(order, BATCH):
            loss: Any = model(**rows.__getitems__(some.tolist())).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def trainer_steps(sides: Sides, steps: int, folder: str) -> Callable[[], object]:
    arguments = next_item_arguments(
        folder,
        max_epochs=1,
        batch_size=BATCH,
        max_steps=steps,
        learning_rate=sides.recommender.config.learning_rate,
        weight_decay=sides.recommender.config.weight_decay,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    train, validation = (NextItemRows(sides.splits.part(part)) for part in ("train", "validation"))
    trainer = DreamRecTrainer(copy.deepcopy(sides.model), arguments, train, validation)
    trainer.remove_callback(EarlyStoppingCallback)  # it wants validation
    return trainer.train


def published_steps(sides: Sides, steps: int, options: dict[str, Any]) -> Callable[[], None]:
    network, frame = copy.deepcopy(sides.published).train(), data_frame(sides.splits.train)
    optimizer = torch.optim.AdamW(network.parameters(), **options)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss: Any = network.loss(frame.sample(n=BATCH))
            loss.backward()
            optimizer.step()

    return run


def memory_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    items, chunk = sides.sizes.catalogue, sides.sizes.chunk
    set_seed(0)
    paper: dict[str, Any] = {"encoder": "transformer", "initializer_range": 1.0, "item_norm": None}
    model = DreamRecModel(DreamRecConfig(num_items=items, hidden_size=sides.sizes.width, **paper)).eval()
    history = torch.randint(1, items + 1, (BATCH, 10))
    found: list[Tensor] = []

    def rank() -> None:
        found[:] = model.nearest(model.oracle(history), LISTED, chunk_size=chunk)

    peak = _results.peak_extra_bytes(rank)
    scores = model.oracle(history)[:4] @ model.item_vectors.T
    if not torch.equal(found[1][:4], top_items(scores, LISTED)):
        raise SystemExit("the best items of a catalogue in chunks are not those of the whole catalogue")
    table = model.encoder.items.weight
    return [
        _results.row(
            f"ranking {items} items for {BATCH} histories in chunks, item table included",
            ours=(peak + table.nbytes) / 2**30,
            baseline=4.0,
            unit="GiB at most",
            goal=1,
            baseline_is="limit",
        )
    ]


def measure(given: _results.Options) -> list[dict[str, Any]]:
    sides = Sides(make_splits(given.quick), QUICK if given.quick else FULL)
    sides.check()
    print("both sides agree", flush=True)
    rows = []
    for part in (sampling_rows, training_rows, memory_rows):
        rows += part(sides, 1 if given.quick else REPEATS)
        print(f"{part.__name__} done", flush=True)
    return rows


def main() -> None:
    given = _results.options("Speed and memory of DreamRec.")
    datasets.disable_progress_bars()
    torch.set_num_threads(1 if given.quick else 2)
    _results.write(
        "dreamrec",
        measure(given),
        data="Zhihu, DreamRec's official split; DreamRec with the paper's settings (T 500, linear, w 4, d 64, AdamW "
        f"0.01) after the best of {FULL.epochs} epochs; {FULL.users} validation rows and {FULL.train_steps} training "
        "steps a turn, medians; the million items are synthetic",
        given=given,
        packages=("seqrec-diffusion", "transformers", "pandas"),
    )


if __name__ == "__main__":
    main()
