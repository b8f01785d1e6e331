"""`DreamRecModel`: from a history to the oracle item, and from there to scores of real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from predilect.evaluation.ranking import top_items
from predilect.modeling.losses import weighted_mean
from predilect.modeling.sequential import SequentialOutput
from seqrec_diffusion.configuration import DreamRecConfig, Sampling
from seqrec_diffusion.denoiser import Denoiser
from seqrec_diffusion.encoder import init_linear, make_encoder
from seqrec_diffusion.noise import row_keys, row_noise
from seqrec_diffusion.objective import catalogue_cross_entropy, others_mean, preference_loss, reconstruction_error
from seqrec_diffusion.schedules import run_sampler, sampler_plan, signal_and_noise

TILE = 256
"""Rows that are sampled and scored at once, in inference. Every batch is cut into, and filled up to, tiles of this
size: matrix products of one shape sum in one order, so a row's scores do not depend on the batch that it came in."""


class DreamRecModel(PreTrainedModel):
    r"""Guided diffusion in the space of item embeddings.

    The state :math:`h` of a history guides a diffusion process from noise to an item that may not exist, the *oracle*
    item; real items are ranked by their similarity to it. Training denoises the embedding :math:`x_0` of the item that
    followed, at a random time :math:`t`:

    .. math:: x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon, \qquad
        loss = \| x_0 - f(x_t, h, t) \|^2 / d,

    with the item table learned jointly, through the encoder and through :math:`x_0`. A share p of the states is
    replaced by a learned null state, which makes guidance possible (`Sampling.guidance`).

    The encoder is a `SequentialModel` and its item table is the only one: items mean the same in a history and as a
    target. Its item bias belongs to the softmax head and is learned under `objective="softmax"` only; that control is
    the same encoder without any diffusion. An empty history has a learned state of its own (a constant there too; not
    the null state, which is learned from all histories).

    Histories are padded with 0 on the left, to any width, and 0 is never ranked.

    Source: Yang et al., "Generate What You Prefer: Reshaping Sequential Recommendation via Guided Diffusion", NeurIPS
    2023 (arXiv 2310.20453). Not as in the official code: no dropout in evaluation; padding has no row in the ranking;
    a row's noise does not depend on its batch; modules that nothing uses do not exist.

    Attributes:
        sampling: how `oracle` and `scores` sample where nothing else is said; not saved with the weights.

    Examples:
        >>> model = DreamRecModel(DreamRecConfig(num_items=5, hidden_size=8, timesteps=20)).eval()
        >>> model.scores(torch.tensor([[0, 3, 1]]), Sampling(steps=5, guidance=0)).shape
        torch.Size([1, 5])
    """

    config_class = DreamRecConfig
    base_model_prefix = ""
    main_input_name = "history"
    _supports_sdpa = True

    def __init__(self, config: DreamRecConfig) -> None:
        super().__init__(config)
        self.sampling = Sampling()
        self.encoder = make_encoder(
            config.encoder,
            num_items=config.num_items,
            hidden_size=config.hidden_size,
            max_history=config.max_history,
            dropout=config.dropout,
            initializer_range=config.initializer_range,
            **(config.encoder_options or {}),
        )
        if config.objective == "diffusion":
            self.denoiser = Denoiser(config.denoiser, config.hidden_size)
            self.null_state = nn.Parameter(torch.empty(config.hidden_size))
            self.empty_state = nn.Parameter(torch.empty(config.hidden_size))
        self._freeze_unused()
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`; scores equal those of the saved model to the last bit.

        Weights are copied out of the file mapped into memory, where they lie unaligned: there, processors sum products
        in another order.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        model._freeze_unused()
        return loaded

    @property
    def item_vectors(self) -> Tensor:
        """The items as targets and in scores, (N, d): row `j` is item `j + 1`; of length `item_norm` if set."""
        return self._as_targets(self.encoder.item_embeddings[1:])

    def states(self, history: Tensor) -> Tensor:
        """h of each history, (B, d)."""
        encoded = self.encoder.last_state(history)
        if self.config.objective == "softmax":
            return encoded
        return torch.where(history[:, -1:] == 0, self.empty_state, encoded)

    def forward(self, history: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> SequentialOutput:
        """The loss where targets are given, otherwise scores.

        Args:
            history: (B, L) item ids, oldest first, padded with 0 on the left.
            target: (B,) item ids 1..N.
            weight: (B,) of the rows' losses in their mean, at least 0; None: all alike. A row of weight 0 has no part
                in the gradient, as another row's negative neither.

        Returns:
            `loss`, a scalar; or `scores`, (B, N).

        Raises:
            ValueError: wrong shapes, ids outside 0..N (targets: 1..N), padding that is not on the left.
        """
        if target is None:
            return SequentialOutput(scores=self.scores(history))
        if self.config.objective == "softmax":
            output: SequentialOutput = self.encoder(history, target, weight)
            return output
        if target.dim() != 1:
            raise ValueError(f"target must have shape ({len(history)},), one per history (got {tuple(target.shape)})")
        if weight is not None and weight.shape != target.shape:
            raise ValueError(f"weight must have the shape of target {tuple(target.shape)} (got {tuple(weight.shape)})")
        self._check_ids(target, "target", history)
        return SequentialOutput(loss=self._loss(history, target, weight))

    @torch.no_grad()
    def oracle(self, history: Tensor, sampling: Sampling | None = None) -> Tensor:
        """The oracle item of each history, (B, d): sampled, and averaged over `sampling.draws`.

        Args:
            history: (B, L) item ids, oldest first, padded with 0 on the left.
            sampling: None: `self.sampling`.

        Raises:
            ValueError: steps beyond the T of the model; guidance with a model that was trained without null states; a
                model of the softmax objective, which generates nothing.
        """
        sampling = self._checked(sampling)
        return self._tiled(history, lambda tile: self._sample(tile, sampling))

    @torch.no_grad()
    def scores(self, history: Tensor, sampling: Sampling | None = None, *, candidates: Tensor | None = None) -> Tensor:
        """Similarity of items to the oracle item; of the softmax objective, its logits.

        Args:
            history: (B, L) item ids, oldest first, padded with 0 on the left.
            sampling: None: `self.sampling`.
            candidates: (B, C) item ids 1..N; None: all items.

        Returns:
            (B, C); or (B, N), where column `j` is item `j + 1`.
        """
        if candidates is not None:
            self._check_ids(candidates, "candidates", history)
        if self.config.objective == "softmax":
            scores = self._tiled(history, self.encoder.scores)
            return scores if candidates is None else scores.gather(1, candidates - 1)
        sampling = self._checked(sampling)
        if candidates is not None:
            oracle = self.oracle(history, sampling)
            chosen = self._as_targets(self.encoder.item_embeddings[candidates])
            return self._similar(oracle[:, None], chosen, sampling).squeeze(1)
        vectors = self.item_vectors
        return self._tiled(history, lambda tile: self._similar(self._sample(tile, sampling), vectors, sampling))

    @torch.no_grad()
    def nearest(
        self, oracle: Tensor, k: int = 10, *, similarity: str | None = None, chunk_size: int = 65_536
    ) -> tuple[Tensor, Tensor]:
        """The k items nearest to each oracle item, a chunk of the catalogue at a time: memory does not grow with N.

        Args:
            oracle: (B, d), of `oracle`.
            k: at least 1.
            similarity: "dot" or "cosine"; None: that of `self.sampling`.
            chunk_size: items compared at once.

        Returns:
            Scores and item ids, both (B, min(k, N)), best first; of equal scores the lower id first.
        """
        if k < 1 or chunk_size < 1:
            raise ValueError(f"k and chunk_size must be at least 1 (got {k} and {chunk_size})")
        sampling = Sampling(similarity=similarity or self.sampling.similarity)
        best, ids = oracle.new_empty(len(oracle), 0), oracle.new_empty(len(oracle), 0, dtype=torch.int64)
        for start in range(1, self.config.num_items + 1, chunk_size):
            rows = self.encoder.item_embeddings[start : start + chunk_size]
            scores = self._similar(oracle, self._as_targets(rows), sampling)
            nearest = top_items(scores, k)
            best, ids = torch.cat((best, scores.gather(1, nearest - 1)), 1), torch.cat((ids, nearest + start - 1), 1)
            best, order = best.sort(dim=1, descending=True, stable=True)
            best, ids = best[:, :k], ids.gather(1, order[:, :k])
        return best, ids

    def _freeze_unused(self) -> None:
        """The bias of the softmax head, where that head is not used."""
        self.encoder.item_bias.requires_grad_(self.config.objective == "softmax")

    def _loss(self, history: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        config = self.config
        states = self.states(history)
        dropped = torch.rand(len(target), 1, device=target.device) < config.null_probability
        states = torch.where(dropped, self.null_state, states)
        clean = self._as_targets(self.encoder.items(target))
        if config.detach_target:
            clean = clean.detach()
        timesteps = torch.randint(config.timesteps, target.shape, device=target.device)
        predicted = self._denoise(clean, states, timesteps)
        error = reconstruction_error(predicted, clean, config.error)
        losses = config.error_weight * error
        if config.cross_entropy_weight:
            entropy = catalogue_cross_entropy(predicted, self.item_vectors, target, config.temperature)
            losses = losses + config.cross_entropy_weight * entropy
        if config.preference_weight:
            negative = others_mean(clean, weight)
            worse = reconstruction_error(self._denoise(negative, states, timesteps), negative, config.error)
            losses = losses + config.preference_weight * preference_loss(error, worse, config.preference_scale)
        return weighted_mean(losses, weight)

    def _denoise(self, clean: Tensor, states: Tensor, timesteps: Tensor) -> Tensor:
        """Add fresh noise, and predict what was there before."""
        signal, noise = (part.to(clean.device)[timesteps, None] for part in self._levels)
        predicted: Tensor = self.denoiser(signal * clean + noise * torch.randn_like(clean), states, timesteps)
        return predicted

    @property
    def _levels(self) -> tuple[Tensor, Tensor]:
        return signal_and_noise(self.config.schedule, self.config.timesteps)

    def _check_ids(self, ids: Tensor, name: str, history: Tensor) -> None:
        if len(ids) != len(history):
            raise ValueError(f"{name} must have one row per history (got {len(ids)} for {len(history)})")
        low, high = (int(x) for x in ids.aminmax()) if ids.numel() else (1, 1)
        if low < 1 or high > self.config.num_items:
            raise ValueError(f"{name} must hold ids in 1..{self.config.num_items} (got {low}..{high})")

    def _as_targets(self, rows: Tensor) -> Tensor:
        if self.config.item_norm is None:
            return rows
        normalised: Tensor = F.normalize(rows, dim=-1) * self.config.item_norm
        return normalised

    def _checked(self, sampling: Sampling | None) -> Sampling:
        sampling = sampling or self.sampling
        if self.config.objective == "softmax":
            raise ValueError("a model of objective 'softmax' generates no oracle items: train objective 'diffusion'")
        if sampling.guidance and not self.config.null_probability:
            raise ValueError(
                f"guidance needs a null state, and this model was trained with null_probability 0 (got guidance "
                f"{sampling.guidance}): set guidance=0"
            )
        return sampling

    def _sample(self, history: Tensor, sampling: Sampling) -> Tensor:
        config = self.config
        plan = sampler_plan(sampling.sampler, config.schedule, config.timesteps, sampling.steps)
        guided = self.denoiser.guided(self.states(history), self.null_state, sampling.guidance, plan.timesteps)

        def denoise(noisy: Tensor, step: int) -> Tensor:
            # Cosine error and cross-entropy leave the length of the prediction free, the sampler mixes it with noise.
            return self._as_targets(guided(noisy, step))

        total = torch.zeros(len(history), config.hidden_size, device=history.device)
        for draw in range(sampling.draws):
            keys = row_keys(history, sampling.seed, draw)
            start = row_noise(keys, 0, config.hidden_size)

            def noise(step: int, keys: Tensor = keys) -> Tensor:
                return row_noise(keys, step + 1, config.hidden_size)

            total += run_sampler(plan, start, denoise, noise)
        return total / sampling.draws

    def _similar(self, oracle: Tensor, items: Tensor, sampling: Sampling) -> Tensor:
        if sampling.similarity == "cosine":
            oracle, items = F.normalize(oracle, dim=-1), F.normalize(items, dim=-1)
        return oracle @ items.mT

    def _tiled(self, history: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` of every row, computed in tiles of one shape."""
        if history.dim() != 2 or not history.shape[1]:
            raise ValueError(f"history must have the shape (batch, length >= 1) (got {tuple(history.shape)})")
        count = len(history)
        window = history[:, -self.config.max_history :]
        width = self.config.max_history - window.shape[1]
        window = F.pad(window, (width, 0, 0, -count % TILE if count else TILE))
        parts = [function(tile) for tile in torch.split(window, TILE)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[:count]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init_linear(module)
        elif isinstance(module, DreamRecModel) and module.config.objective == "diffusion":
            init.normal_(module.null_state)
            init.normal_(module.empty_state)
