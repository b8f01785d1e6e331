"""`PreferenceTrainer`: TRL's `DPOTrainer` with an objective composed of parts, lists of rejected answers and shared
prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from predilect.modeling.packed import check_packable
from pref_losses import _trl
from pref_losses.config import AlphaDPOConfig, BetaDPOConfig, DrDPOConfig, PreferenceConfig, SoftmaxDPOConfig
from pref_losses.data import NegativeSampler, NewNegatives, prepare_preferences
from pref_losses.functional import Moments
from pref_losses.moments import RunningMoments
from pref_losses.objective import AnswerLogps, Plan
from pref_losses.reference import reference_logps
from pref_losses.scoring import AnswerScores, PreferenceCollator, score_answers

_NO_LOGITS = (
    "the output head sees only the positions that predict an answer, so there are no logits to return: leave out "
    "compute_metrics (the trainer's own metrics need none) and use evaluate, not predict"
)


class PreferenceTrainer(_trl.DPOTrainer):
    """Trains a causal LM on preferences with any combination of the parts of `PreferenceConfig`.

    Takes the place of `trl.DPOTrainer`: the same arguments, data columns, reference models (a model, the base under an
    adapter, or a copy of the adapter named "ref") and metric keys. Beyond it:

    - `rejected` may be a list, of any length in every row (`num_negatives`, `resample_negatives`);
    - prompt and answers share one row where the model allows it (`prefix_sharing`);
    - what couples the examples of a batch is computed over the whole optimizer batch (`batch_scope`);
    - the evaluation loss takes examples one by one: beta as configured, no filter, plain mean, moments as training
      left them.

    More metrics: `beta` in force, `margin/target`, `margin/gap` (log-ratio gap), `weights/max` (1 = equal weights),
    `weights/effective` (effective share of the batch), `kept_fraction`, `rewards/accuracies_all` (chosen above all
    rejected); `weights/clean` and `weights/flipped` where the data has a column `flipped`. Rewards use the beta in
    force.

    Attributes:
        objective: the parts in use.
        moments: the running moments of the gaps.
        example_weights: for every row trained on by this process, its weight the last time (1 = as in a plain mean).

    Raises:
        TypeError: `args` is not a `PreferenceConfig`, or data is a stream.
        ValueError: prefix sharing is asked for and the model does not allow it; images; `compute_metrics`, which needs
            logits of every position; an adapter of virtual tokens; a mixture of experts with a balancing loss; a model
            built in memory, without a name, where its reference or its tokenizer would have to be loaded by name.
    """

    _tag_names = ("trl", "preference", "predilect")
    _name = "Preference"
    _config: ClassVar[type[PreferenceConfig]] = PreferenceConfig

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: PreferenceConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or self._config(self._name.lower().replace(". ", "-"))
        if not isinstance(args, PreferenceConfig):
            raise TypeError(
                f"args is a PreferenceConfig, which has every field of DPOConfig (got {type(args).__name__})"
            )
        if processing_class is None:
            _trl.require_name(model, "with its tokenizer: pass processing_class")
            processing_class = AutoTokenizer.from_pretrained(_trl.model_id(model))
        if not isinstance(processing_class, PreTrainedTokenizerBase):
            raise ValueError(
                f"this trainer reads text only: pass a tokenizer as processing_class (got "
                f"{type(processing_class).__name__})"
            )
        if kwargs.get("compute_metrics") is not None:
            raise ValueError(_NO_LOGITS)
        self.objective = args.objective()
        adapted = kwargs.get("peft_config") is not None or hasattr(model, "peft_config")
        if self.objective.needs_reference and not (adapted or args.precompute_ref_log_probs or ref_model is not None):
            _trl.require_name(model, "as its own reference: pass ref_model, such as copy.deepcopy(model)")
        self._collator = data_collator or PreferenceCollator(
            _trl.pad_token_id(processing_class, args), False, args.pad_to_multiple_of
        )
        self._micro_batches = 1
        self.example_weights: dict[int, float] = {}
        with (
            _trl.without_reference_model(args, unless=self.objective.needs_reference),
            _trl.own_forwards(model, ref_model),
        ):
            super().__init__(
                model,
                ref_model,
                args,
                self._collator,
                train_dataset,
                eval_dataset,
                processing_class,
                **kwargs,
            )
        self.precompute_ref_logps = args.precompute_ref_log_probs
        _trl.refuse_unsupported(self)
        self.add_callback(RunningMoments(args.moments_decay))
        self._choose_layout()
        self.train_dataset: Any = self._sampled(self.train_dataset, resample=args.resample_negatives)
        if isinstance(self.train_dataset, NegativeSampler):
            self.add_callback(NewNegatives(self.train_dataset))
        self.eval_dataset: Any = self._sampled(self.eval_dataset, resample=False)

    @property
    def moments(self) -> RunningMoments:
        """The callback in force: transformers may replace the one added here when it resumes."""
        return next(c for c in self.callback_handler.callbacks if isinstance(c, RunningMoments))

    # --- data -----------------------------------------------------------------------------------------------

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: PreferenceConfig, dataset_name: str) -> Any:
        if isinstance(dataset, NegativeSampler):  # this trainer's own `eval_dataset`, given to `evaluate`
            return dataset
        with args.main_process_first(desc="tokenising"):
            return prepare_preferences(
                dataset,
                processing_class,
                max_length=args.max_length,
                truncation_mode=args.truncation_mode,
                num_proc=args.dataset_num_proc,
                name=dataset_name,
            )

    def _set_signature_columns_if_needed(self) -> None:
        answers = ["prompt_ids", "chosen_ids", "rejected_ids"]
        _trl.keep_columns(self, [*answers, "ref_chosen_logps", "ref_rejected_logps", "row", "flipped"])

    def _sampled(self, dataset: Any, *, resample: bool) -> Any:
        """The data, or the data sets by name, with `num_negatives` rejected answers a row."""
        if self.args.num_negatives is None or dataset is None:
            return dataset
        if isinstance(dataset, dict):
            return {name: self._sampled(part, resample=resample) for name, part in dataset.items()}
        return NegativeSampler(dataset, self.args.num_negatives, resample=resample, seed=self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Evaluation always sees the same negatives."""
        if isinstance(eval_dataset, Dataset):
            eval_dataset = self._sampled(eval_dataset, resample=False)
        return super().get_eval_dataloader(eval_dataset)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if not self.objective.needs_reference or isinstance(dataset, NegativeSampler):
            return dataset
        self._choose_layout()
        return reference_logps(self, dataset, name, batch_size)

    def _choose_layout(self) -> None:
        """Whether prompts are shared; decided once policy and reference are there."""
        if not isinstance(self._collator, PreferenceCollator) or self.args.prefix_sharing == "false":
            return
        try:
            for model in filter(None, (self.model, self.ref_model)):
                check_packable(model)
        except ValueError:
            if self.args.prefix_sharing == "true":
                raise
            return
        self._collator.share_prefix = True

    # --- log-probabilities ----------------------------------------------------------------------------------

    def compute_ref_log_probs(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Reference log-probs of one batch, summed over tokens: (B,) chosen, (B, K) rejected."""
        with torch.no_grad(), _trl.reference_mode(self), self.compute_loss_context_manager():
            sums = score_answers(model, inputs).sums
        return sums[:, 0], sums[:, 1:]

    def _reference(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """(B, 1 + K) reference log-probs: from the batch, or computed and kept in it for a second pass."""
        if not self.objective.needs_reference:
            return None
        if "ref_logps" not in inputs:
            model = self.ref_model if self.ref_model is not None else self.model
            chosen, rejected = self.compute_ref_log_probs(model, inputs)
            inputs["ref_logps"] = torch.cat([chosen[:, None], rejected], 1)
        return inputs["ref_logps"]

    def _logps(self, scores: AnswerScores, reference: Tensor | None, mask: Tensor) -> AnswerLogps:
        sums = scores.sums
        if self.objective.score == "mean_logp":
            counts = scores.counts.clamp_min(1)
            sums = sums / counts
            reference = None if reference is None else reference / counts
        ref_chosen, ref_rejected = (None, None) if reference is None else (reference[:, 0], reference[:, 1:])
        return AnswerLogps(sums[:, 0], sums[:, 1:], ref_chosen, ref_rejected, mask[:, 1:])

    # --- the whole batch ------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of the next optimizer step; what couples their examples is planned before the first is
        trained on.
        """
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.objective.couples_examples and self.args.batch_scope == "global" and len(batches) > 1:
            batches = [_trl.on_device(self, batch) for batch in batches]
            self._plan_ahead(batches)
        self._micro_batches = max(1, len(batches))
        return batches, num_items

    @torch.no_grad()
    def _plan_ahead(self, batches: list[dict[str, Any]]) -> None:
        parts = []
        for batch in batches:
            with self.compute_loss_context_manager():
                scores = score_answers(self.model_wrapped, batch)
            parts.append(self._logps(scores, self._reference(batch), batch["answer_mask"]))
        rows = torch.cat([batch["row"] for batch in batches])
        plan = self._plan(AnswerLogps.concatenate(parts), rows)
        start = 0
        for batch in batches:
            size = len(batch["row"])
            batch["plan"] = replace(plan, weights=plan.weights[start : start + size])
            start += size

    def _plan(self, logps: AnswerLogps, rows: Tensor) -> Plan:
        """The plan of the global batch of which this process holds `logps`; its weights are those of this process's
        examples.
        """
        everywhere, all_rows, mine = _trl.gather_logps(self.accelerator, logps.detach(), rows)
        plan = self._ordered_plan(everywhere, all_rows, self._update_moments(everywhere))
        return replace(plan, weights=plan.weights[mine])

    def _ordered_plan(self, logps: AnswerLogps, rows: Tensor, moments: Moments | None) -> Plan:
        """The plan of a batch taken in the order of the data, so that draws do not depend on how it is spread."""
        order = torch.argsort(rows, stable=True)
        seed = np.random.SeedSequence([self.args.seed, self.state.global_step, *rows[order].tolist()])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
        plan = self.objective.plan(logps[order], moments, generator)
        return replace(plan, weights=torch.empty_like(plan.weights).index_copy(0, order, plan.weights))

    def _update_moments(self, logps: AnswerLogps) -> Moments | None:
        return self.moments.update(self.objective.gaps(logps)) if self.objective.uses_gap_moments else None

    # --- the loss -------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch, backward pass included. Under autocast PEFT brings each activation to float32 for its
        adapters and autocast brings it back: the same numbers without the two copies."""
        with disable_input_dtype_casting(self.model, active=self.args.bf16 or self.args.fp16):
            loss: Tensor = super().training_step(*args, **kwargs)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of this micro-batch's losses, scaled so that the trainer's averages give the batch's
        gradient and value.
        """
        if return_outputs:
            raise ValueError(_NO_LOGITS)
        training = self.model.training
        scores = score_answers(model, inputs, statistics=True)
        reference = self._reference(inputs)
        logps = self._logps(scores, reference, inputs["answer_mask"])
        if training:
            plan, share = self._training_plan(inputs, logps)
        else:
            moments = self.moments.current(logps.chosen.detach()) if self.objective.uses_gap_moments else None
            plan, share = self.objective.plain(logps.detach(), moments), 1
        losses = self.objective.losses(logps, plan.beta, plan.moments)
        weighted = share * (plan.weights * losses).sum()
        loss = weighted - weighted.detach() + plan.loss.detach()
        self._log_batch("train" if training else "eval", inputs, scores, logps, plan, share)
        return loss

    def _training_plan(self, inputs: dict[str, Any], logps: AnswerLogps) -> tuple[Plan, int]:
        """The plan, and what its share of the weights must be multiplied by: the trainer averages over micro-batches
        and processes.
        """
        if "plan" in inputs:
            return inputs["plan"], self._micro_batches * self.accelerator.num_processes
        if self.args.batch_scope == "global" and self.objective.couples_examples:
            return self._plan(logps, inputs["row"]), self.accelerator.num_processes
        moments = None
        if self.objective.uses_gap_moments:
            everywhere, _, _ = _trl.gather_logps(self.accelerator, logps.detach(), inputs["row"])
            moments = self._update_moments(everywhere)
        return self._ordered_plan(logps.detach(), inputs["row"], moments), 1

    # --- metrics --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _log_batch(
        self, mode: str, inputs: Mapping[str, Any], scores: AnswerScores, logps: AnswerLogps, plan: Plan, share: int
    ) -> None:
        mask = logps.mask
        chosen = plan.beta * (logps.chosen - (0 if logps.ref_chosen is None else logps.ref_chosen))
        rejected = plan.beta * (logps.rejected - (0 if logps.ref_rejected is None else logps.ref_rejected))
        margins = (chosen[:, None] - rejected)[mask]
        above = chosen[:, None] > rejected
        weights = plan.weights * share * len(chosen)
        values = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected[mask],
            "rewards/margins": margins,
            "rewards/accuracies": above[mask].float(),
            "rewards/accuracies_all": (above | ~mask).all(1).float(),
            "logps/chosen": scores.sums[:, 0],
            "logps/rejected": scores.sums[:, 1:][mask],
            "margin/target": self.objective.margins(logps, plan.moments).expand_as(mask)[mask],
            "weights/max": weights.max(),
            "weights/effective": weights.sum() ** 2 / (len(weights) * (weights**2).sum()),
            "kept_fraction": (weights > 0).float(),
            "beta": plan.beta,
            **scores.statistics,
        }
        if self.objective.needs_reference:
            values["margin/gap"] = logps.log_ratio_gaps()[mask]
        if mode == "train":
            self.example_weights.update(zip(inputs["row"].tolist(), weights.tolist(), strict=True))
            if "flipped" in inputs:
                values |= {"weights/flipped": weights[inputs["flipped"]], "weights/clean": weights[~inputs["flipped"]]}
        _trl.log_metrics(self, mode, values, inputs)


class AlphaDPOTrainer(PreferenceTrainer):
    """`PreferenceTrainer` whose default `args` is an `AlphaDPOConfig`."""

    _tag_names = ("trl", "alpha-dpo", "predilect")
    _name = "alpha-DPO"
    _config = AlphaDPOConfig
    _paper: ClassVar = _trl.paper(
        "AlphaDPO: Adaptive Reward Margin for Direct Preference Optimization", "2410.10148", 2024
    )


class BetaDPOTrainer(PreferenceTrainer):
    """`PreferenceTrainer` whose default `args` is a `BetaDPOConfig`."""

    _tag_names = ("trl", "beta-dpo", "predilect")
    _name = "beta-DPO"
    _config = BetaDPOConfig
    _paper: ClassVar = _trl.paper("beta-DPO: Direct Preference Optimization with Dynamic beta", "2407.08639", 2024)


class DrDPOTrainer(PreferenceTrainer):
    """`PreferenceTrainer` whose default `args` is a `DrDPOConfig`."""

    _tag_names = ("trl", "dr-dpo", "predilect")
    _name = "Dr. DPO"
    _config = DrDPOConfig
    _paper: ClassVar = _trl.paper(
        "Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference Optimization",
        "2407.07880",
        2025,
    )


class SoftmaxDPOTrainer(PreferenceTrainer):
    """`PreferenceTrainer` whose default `args` is a `SoftmaxDPOConfig`."""

    _tag_names = ("trl", "softmax-dpo", "predilect")
    _name = "Softmax-DPO"
    _config = SoftmaxDPOConfig
    _paper: ClassVar = _trl.paper("On Softmax Direct Preference Optimization for Recommendation", "2406.09215", 2024)
