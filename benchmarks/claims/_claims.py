"""What the claims scripts share: data in parts, an SFT stage, runs that are kept, learning rates.

A study compares systems (options of `PreferenceConfig`) under settings (what is done to the training rows):

1. Rows are split, whole people where rows tell whose they are: test and validation rows are the same for all seeds;
   each seed draws its own SFT and training rows from the rest. The SFT stage fits a LoRA adapter to the chosen answers
   of the SFT rows and merges it: that model is the reference. Its log-probs of all rows are computed once and used by
   every run of that seed. All this is kept.
2. Each system has its own learning rate in each setting: that of the grid with the best mean on the (clean) validation
   rows over the first `TUNE_SEEDS` seeds; ties go to the smaller rate. Test rows play no part.
3. One run for each (system, setting, seed). Every finished run is kept as a file whose name digests all options of its
   trainer, the recipe and the content of the data; studies on the same data share runs. A script that was killed goes
   on from there, and copies started together (on one GPU, say) share the runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks import _preferences as shared
from benchmarks.claims._kept import Job, digest, only_one, share
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import Array, Estimate, estimate
from datasets import Dataset, disable_progress_bars
from peft import get_peft_model
from transformers import PrinterCallback

from predilect.modeling import load_causal_lm
from predilect.runs import table_fingerprint
from pref_losses import PreferenceConfig, PreferenceTrainer
from pref_losses.data import prepare_preferences
from pref_losses.scoring import PreferenceCollator, score_answers

BATCH = 8
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
TUNE_SEEDS = 2
ATTENTION = "eager" if shared.DEVICE == "cpu" else "sdpa"  # on a processor eager's backward pass is the faster one
MAX_LENGTH = 256  # prompts are cut at their beginning, in every part of the data alike

Row = dict[str, Any]


class Sizes(NamedTuple):
    sft: int
    train: int
    validation: int
    test: int


QUICK = Sizes(sft=8, train=32, validation=8, test=8)


@dataclass(frozen=True)
class Data:
    """Where the rows come from.

    Attributes:
        name: of the folder in which the SFT stage is kept; studies with the same data share it.
        rows: quick or not -> `prompt`, `chosen`, `rejected`, and `person` where it is known whose rows these are.
        sizes: rows of each part.
        words: what this is, for the result file.
        longest: rows with more tokens, prompt and all answers together, are left out.
        sft_rate, sft_epochs: of the SFT stage.
        answers: (training rows, generator) -> training rows with the rejected answers that settings choose from.
    """

    name: str
    rows: Callable[..., Dataset]
    sizes: Sizes
    words: str
    longest: int
    answers: Callable[[list[Row], np.random.Generator], list[Row]]
    sft_rate: float = 2e-4
    sft_epochs: int = 1


@dataclass(frozen=True)
class Study:
    """Claims and how they are tested.

    Attributes:
        name: of the script.
        paper: authors, year, number.
        data: rows.
        systems: name -> options of `PreferenceConfig`; or setting -> options, where they depend on it.
        settings: name -> (training row, number drawn uniformly from [0, 1) for this row) -> training row.
        claims: in words -> (better, worse, settings), where `better` is claimed to beat `worse` in each setting.
        metric: "accuracy" (chosen above all rejected by the score that the system trains) or "hr@1" (by likelihood).
        seeds: how many.
        epochs: passes over the training rows.
        extra: (trainer, training rows) -> more numbers of a run.
    """

    name: str
    paper: str
    data: Data
    systems: Mapping[str, Mapping[str, Any] | Callable[[str], Mapping[str, Any]]]
    settings: Mapping[str, Callable[[Row, float], Row]]
    claims: Mapping[str, Sequence[tuple[str, str, Sequence[str]]]]
    metric: str = "accuracy"
    seeds: int = 6
    epochs: int = 3
    extra: Callable[[Any, list[Row]], dict[str, float]] = field(default=lambda trainer, rows: {})

    def options(self, system: str, setting: str) -> dict[str, Any]:
        """Of the trainer, and `negatives`: how many of a row's rejected answers are used."""
        found = self.systems[system]
        return dict(found(setting) if callable(found) else found)


class Run(NamedTuple):
    system: str
    setting: str
    seed: int
    rate: float

    def __str__(self) -> str:
        return f"{self.system}, {self.setting}, seed {self.seed}, learning rate {self.rate:g}"


# --- the stage before: splits, SFT, reference ------------------------------------------------------------------------


class Stage(NamedTuple):
    model: Path
    train: list[Row]
    validation: list[Row]
    test: list[Row]


def stage(data: Data, seed: int, given: Options) -> Stage:
    """The SFT model of a seed and the rows with its log-probs; made once and kept in the work folder."""
    folder = given.work / f"{data.name}-seed{seed}-{digest(_recipe(data, given))}"
    with only_one(folder):
        if not (folder / "done").is_file():
            print(f"SFT stage of seed {seed}", flush=True)
            _make_stage(data, seed, given, folder)
    parts = ("train", "validation", "test")
    return Stage(
        folder / "model", *(Dataset.from_parquet(str(folder / f"{part}.parquet")).to_list() for part in parts)
    )


def _make_stage(data: Data, seed: int, given: Options, folder: Path) -> None:
    model, tokenizer = shared.language_model(quick=given.quick)
    model.set_attn_implementation(ATTENTION)
    parts = _split(data, tokenizer, seed, given.quick)
    model = sft(model, parts.pop("sft"), tokenizer.pad_token_id, seed, data, given.quick)
    for part, rows in parts.items():
        rows = with_reference(model, rows, tokenizer.pad_token_id, given.quick)
        Dataset.from_list(rows).to_parquet(_made(folder) / f"{part}.parquet")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "done").touch()


def _split(data: Data, tokenizer: Any, seed: int, quick: bool) -> dict[str, list[Row]]:
    sizes = QUICK if quick else data.sizes
    prepared = prepare_preferences(
        data.rows(quick=quick), tokenizer, max_length=MAX_LENGTH, truncation_mode="keep_end", name=data.name
    )
    rows = [row for row in prepared.to_list() if quick or _length(row) <= data.longest]
    if len(rows) < sum(sizes):
        raise SystemExit(f"{data.name} has {len(rows)} rows of at most {data.longest} tokens, {sum(sizes)} are needed")
    held_out, validation, test = _held_out(rows, sizes)
    rng = np.random.default_rng(1 + seed)
    rest = rng.permutation(np.setdiff1d(np.arange(len(rows)), held_out))
    if len(rest) < sizes.sft + sizes.train:
        raise SystemExit(f"{data.name} leaves {len(rest)} rows of other people, {sizes.sft + sizes.train} are needed")
    train = [rows[i] for i in rest[sizes.sft : sizes.sft + sizes.train]]
    return {
        "sft": [rows[i] for i in rest[: sizes.sft]],
        "train": data.answers(train, rng),
        "validation": [rows[i] for i in validation],
        "test": [rows[i] for i in test],
    }


def _held_out(rows: list[Row], sizes: Sizes) -> tuple[Array, Array, Array]:
    """(all rows of people with a validation or test row, validation rows, test rows), the same for all seeds.

    People come in random order until the test part is full, then until the validation part is; where that ends within
    a person, its other rows are in no part.
    """
    people = np.unique([row.get("person", i) for i, row in enumerate(rows)], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    turn = rng.permutation(int(people.max()) + 1)[people]
    order = np.lexsort((rng.permutation(len(rows)), turn))  # people one after the other
    after = np.searchsorted(turn[order], turn[order[sizes.test - 1]], side="right")  # the next person
    validation = order[after : after + sizes.validation]
    end = np.searchsorted(turn[order], turn[order[after + sizes.validation - 1]], side="right")
    return order[:end], validation, order[: sizes.test]


def sft(model: Any, rows: list[Row], pad_token_id: int, seed: int, data: Data, quick: bool) -> Any:
    """A few epochs on the chosen answers, with an adapter that is merged at the end."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, shared.lora()).to(shared.DEVICE).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=data.sft_rate)
    collate = PreferenceCollator(pad_token_id, share_prefix=False)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(data.sft_epochs)])
    for start in range(0, len(order), BATCH):
        batch = collate([rows[i] | {"rejected_ids": []} for i in order[start : start + BATCH]])
        with shared.autocast(quick=quick):
            scores = score_answers(adapted, _on_device(batch))
        torch.autograd.backward(-scores.sums.sum() / scores.counts.sum())
        optimizer.step()
        optimizer.zero_grad()
    dtype = model.dtype
    return adapted.float().merge_and_unload().to(dtype).eval()  # merged in float32: small updates survive


@torch.inference_mode()
def answer_logps(model: Any, rows: list[Row], pad_token_id: int, quick: bool) -> tuple[list[Array], list[Array]]:
    """Sums and counts of the log-probs of every row's answers, chosen first; batches of similar length."""
    collate = PreferenceCollator(pad_token_id, share_prefix=True)
    sums, counts = [np.empty(0)] * len(rows), [np.empty(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: _length(rows[i]))
    for start in range(0, len(rows), 2 * BATCH):
        numbers = order[start : start + 2 * BATCH]
        batch = collate(
            [{n: rows[i][n] for n in ("prompt_ids", "chosen_ids", "rejected_ids", "row")} for i in numbers]
        )
        with shared.autocast(quick=quick):
            scores = score_answers(model, _on_device(batch))
        for i, own_sums, own_counts, mask in zip(
            numbers, scores.sums.cpu(), scores.counts.cpu(), batch["answer_mask"], strict=True
        ):
            sums[i], counts[i] = own_sums[mask].numpy(), own_counts[mask].numpy()
    return sums, counts


def with_reference(model: Any, rows: list[Row], pad_token_id: int, quick: bool) -> list[Row]:
    sums, _ = answer_logps(model, rows, pad_token_id, quick)
    return [
        row | {"ref_chosen_logps": float(s[0]), "ref_rejected_logps": s[1:].tolist()}
        for row, s in zip(rows, sums, strict=True)
    ]


# --- what settings do to a row ---------------------------------------------------------------------------------------


def use_rejected(row: Row, numbers: Sequence[int]) -> Row:
    """The row with some of its rejected answers."""
    return row | {name: [row[name][i] for i in numbers] for name in ("rejected_ids", "ref_rejected_logps")}


def flip(row: Row) -> Row:
    """Chosen and first rejected answer exchanged; `flipped` says so."""
    return row | {
        "chosen_ids": row["rejected_ids"][0],
        "rejected_ids": [row["chosen_ids"]],
        "ref_chosen_logps": row["ref_rejected_logps"][0],
        "ref_rejected_logps": [row["ref_chosen_logps"]],
        "flipped": True,
    }


def flips(share: float) -> Callable[[Row, float], Row]:
    """Flips this share of the pairs; those flipped at a smaller share are among those flipped at a larger one."""
    return lambda row, draw: flip(row) if draw < share else use_rejected(row, [0]) | {"flipped": False}


# --- runs ------------------------------------------------------------------------------------------------------------


def run(study: Study, one: Run, given: Options, *, part: str) -> dict[str, Any]:
    """Train and score the rows of `part`: `correct` (one number per row), `seconds`, and the study's extras."""
    start = time.perf_counter()
    ready = stage(study.data, one.seed, given)
    options = study.options(one.system, one.setting)
    draws = np.random.default_rng((one.seed, 7)).random(len(ready.train))
    changed = study.settings[one.setting]
    rows = [changed(row, float(u)) for row, u in zip(ready.train, draws, strict=True)]
    if (negatives := options.get("negatives")) is not None:
        rows = [use_rejected(row, range(negatives)) for row in rows]
    rows = [row | {"row": i} for i, row in enumerate(_in_batches(rows, one.seed))]
    model, tokenizer = load_causal_lm(ready.model, attn_implementation=ATTENTION)
    with tempfile.TemporaryDirectory() as folder:
        args = _arguments(study, one, folder, given.quick)
        trainer = PreferenceTrainer(
            model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=shared.lora(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    held_out = getattr(ready, part)
    sums, counts = answer_logps(trainer.model.eval(), held_out, tokenizer.pad_token_id, given.quick)
    rank_by = "likelihood" if study.metric == "hr@1" else args.score
    scores = [_scores(rank_by, s, n, row) for s, n, row in zip(sums, counts, held_out, strict=True)]
    return {
        "run": one._asdict(),
        "correct": [int(s[0] > s[1:].max()) for s in scores],
        **({"people": [row["person"] for row in held_out]} if "person" in held_out[0] else {}),
        "chosen logp, change": float(
            np.mean([s[0] - r["ref_chosen_logps"] for s, r in zip(sums, held_out, strict=True)])
        ),
        **study.extra(trainer, rows),
        "seconds": time.perf_counter() - start,
    }


def _arguments(study: Study, one: Run, folder: str | Path, quick: bool) -> PreferenceConfig:
    options = study.options(one.system, one.setting)
    options.pop("negatives", None)
    return PreferenceConfig(
        **shared.trainer_options(folder, quick=quick, learning_rate=one.rate, seed=one.seed),
        per_device_train_batch_size=BATCH,
        num_train_epochs=study.epochs,
        max_length=MAX_LENGTH,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        train_sampling_strategy="sequential",
        **options,
    )


def _in_batches(rows: list[Row], seed: int) -> list[Row]:
    """Batches of similar length, so that little is padded, in random order."""
    rng = np.random.default_rng((seed, 8))
    order = sorted(rng.permutation(len(rows)).tolist(), key=lambda i: _length(rows[i]))
    batches = [order[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return [rows[i] for number in rng.permutation(len(batches)) for i in batches[number]]


def _scores(rank_by: str, sums: Array, counts: Array, row: Row) -> Array:
    if rank_by == "log_ratio":
        sums = sums - np.array([row["ref_chosen_logps"], *row["ref_rejected_logps"]])
    return sums / (counts if rank_by == "mean_logp" else 1)


def tune(study: Study, system: str, setting: str, given: Options) -> float:
    """The learning rate of a system in a setting: its best on the validation rows."""
    rates = LEARNING_RATES[-1:] if given.quick else LEARNING_RATES
    tuned = range(1 if given.quick else min(TUNE_SEEDS, study.seeds))
    found = _results(
        (job(study, Run(system, setting, seed, rate), given, part="validation") for rate in rates for seed in tuned),
        given,
    )
    scores = np.array([np.mean(result["correct"]) for result in found]).reshape(len(rates), -1).mean(1)
    return rates[int(np.argmax(scores))]


def all_runs(study: Study, given: Options) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(system, setting) -> the results of all seeds on the test rows; with `--kept`, of those that are there."""
    found = {}
    for setting in study.settings:
        for system in study.systems:
            with suppress(Missing):
                rate = tune(study, system, setting, given)
                runs = [Run(system, setting, seed, rate) for seed in seeds(study, given)]
                found[system, setting] = _results((job(study, one, given, part="test") for one in runs), given)
    return found


class Missing(Exception):
    """A run that is not kept, where nothing is to be run."""


def _results(jobs: Iterable[Job], given: Options) -> list[dict[str, Any]]:
    jobs = list(jobs)
    if given.kept and not all(path.is_file() for path, _ in jobs):
        raise Missing
    return share(jobs)


def job(study: Study, one: Run, given: Options, *, part: str) -> Job:
    """A run and its file, which lies beside the result: its evidence, row by row."""
    resolved = {k: v for k, v in _arguments(study, one, ".", given.quick).to_dict().items() if k not in _OF_MACHINE}
    negatives = study.options(one.system, one.setting).get("negatives")
    key = digest([resolved, negatives, one, part, study.metric, _recipe(study.data, given)])

    def make() -> dict[str, Any]:
        result = run(study, one, given, part=part)
        told = f"{study.metric} {np.mean(result['correct']):.3f} on {part} rows"
        print(f"{one}: {told}, {result['seconds']:.0f} s", flush=True)
        return result

    return given.output / "runs" / study.data.name / f"{key}.json", make


# What another machine or folder changes in a trainer's options, and no number
_OF_MACHINE = {"output_dir", "logging_dir", "run_name", "bf16", "use_cpu", "report_to", "local_rank", "fp16", "tf32"}


# --- a script -------------------------------------------------------------------------------------------------------


def summarise(
    study: Study, found: Mapping[tuple[str, str], list[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Estimate]]]:
    """Rows, and the differences of every claim, from (system, setting) -> the results of all seeds."""
    correct = {key: np.array([r["correct"] for r in results], float) for key, results in found.items()}
    rows = []
    for (system, setting), results in found.items():
        name = f"{system}, {setting}" if len(study.settings) > 1 else system
        people = _people(results)
        rows.append(row(name, study.metric, correct[system, setting], people))
        for extra in sorted(set(results[0]) - {"run", "correct", "people", "seconds", "environment"}):
            rows.append(row(name, extra, np.array([[r[extra]] for r in results])))
    claims = {
        claim: {
            f"{setting}: {better} - {worse}": estimate(
                correct[better, setting] - correct[worse, setting], _people(found[better, setting])
            )
            for better, worse, settings in pairs
            for setting in settings
            if (better, setting) in found and (worse, setting) in found
        }
        for claim, pairs in study.claims.items()
    }
    return rows, claims


def _people(results: Sequence[Mapping[str, Any]]) -> Array | None:
    """(R,) whose test row each is; None where that is not known."""
    people = results[0].get("people")
    return None if people is None else np.array(people)


def main(study: Study) -> None:
    given = options_of(" ".join(study.claims))
    disable_progress_bars()
    found = all_runs(study, given)
    rows, claims = summarise(study, found)
    parts = ", ".join(f"{size} {part}" for part, size in study.data.sizes._asdict().items())
    steps = study.epochs * study.data.sizes.train // BATCH
    write_result(
        given,
        name=study.name,
        paper=study.paper,
        data=f"{study.data.words}; rows: {parts}; SmolLM2-135M-Instruct in {shared.DTYPE}, LoRA on all linear layers",
        seeds=seeds(study, given) if found else [],
        rows=rows,
        claims=claims,
        runs=[result for results in found.values() for result in results],
        budget=[
            {
                "system": f"{system}, {setting}",
                "training": f"{steps} steps of {BATCH} rows ({study.epochs} passes); learning rate "
                f"{results[0]['run']['rate']:g}",
                "trainings": len(LEARNING_RATES),
                "chosen": f"{study.metric} on validation rows, {TUNE_SEEDS} seeds",
            }
            for (system, setting), results in found.items()
        ],
        not_run=[
            f"{system}, {setting}"
            for setting in study.settings
            for system in study.systems
            if (system, setting) not in found
        ],
    )


def seeds(study: Study, given: Options) -> range:
    return range(1 if given.quick else study.seeds)


def _recipe(data: Data, given: Options) -> list[Any]:
    """What a kept stage or run depends on beside its own options: another recipe or other rows, another file."""
    numbers = [*data.sizes, data.longest, MAX_LENGTH, data.sft_rate, data.sft_epochs, BATCH, TUNE_SEEDS, given.quick]
    return [data.name, *numbers, _fingerprint(data, given.quick)]


@cache
def _fingerprint(data: Data, quick: bool) -> str:
    rows = data.rows(quick=quick)
    return table_fingerprint(rows, columns=("prompt", "chosen", "rejected", "person"))


def _length(row: Row) -> int:
    return len(row["prompt_ids"]) + len(row["chosen_ids"]) + sum(map(len, row["rejected_ids"]))


def _on_device(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(shared.DEVICE) for name, value in batch.items()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
