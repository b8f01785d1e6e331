"""`AgentModel`: a backbone of the core with values, a target copy, and models of reward and transition."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from offline_rl_rec.configuration import AgentConfig
from offline_rl_rec.objective import (
    best_actions,
    conservative_loss,
    cosine,
    reward_contrast,
    td_error_loss,
    td_target,
    transition_contrast,
)
from predilect.modeling import Caser, GRU4Rec, NextItNet, SASRec, SequentialModel
from predilect.modeling.losses import draw_negatives, softmax_loss, weighted_mean
from predilect.modeling.sequential import SequentialOutput

_KINDS = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser, "nextitnet": NextItNet}
_WRONG_ACTIONS = 4
"""Wrong actions against which each transition is contrasted: each costs a pass of the transition model."""


class Transitions(NamedTuple):
    """T transitions of a batch, flat: states of the trained and of the target copy, before and after the action."""

    state: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    remaining: Tensor
    weight: Tensor | None
    next_state: Tensor
    target_state: Tensor
    target_next: Tensor


class _Valued(nn.Module):
    """A backbone and the projection and bias that make values of its states: what has a target copy."""

    def __init__(self, backbone: SequentialModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(backbone.config.hidden_size, backbone.config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(backbone.config.num_items))

    @property
    def table(self) -> Tensor:
        return self.backbone.item_embeddings

    def values(self, states: Tensor, actions: Tensor) -> Tensor:
        """(T,) Q of one action each."""
        q: Tensor = (self.projection(states) * self.table[actions]).sum(-1) + self.bias[actions - 1]
        return q

    def all_values(self, states: Tensor) -> Tensor:
        """(T, N) Q of all items; padding has no column."""
        return F.linear(self.projection(states), self.table[1:], self.bias)


class AgentModel(PreTrainedModel):
    r"""Next-item prediction and values on one backbone.

    With the state :math:`s` of a history and the embeddings :math:`e_a` that histories, heads and models share,

    .. math:: ce(s, a) = s \cdot e_a + b_a, \qquad Q(s, a) = W s \cdot e_a + c_a,

    and the loss is the sum of the parts of `AgentOptions` by their weights: cross-entropy; the temporal difference to
    :math:`r + \gamma (1 - done) \bar Q(s', \arg\max_a Q(s', a))`; values of sampled items; CQL(H); contrastive models
    of reward and transition; remaining events. One pass of the backbone over a window gives all states and next
    states; one of the target copy, in evaluation mode and without gradients, all values of targets.

    Source: SQN, Xin et al., SIGIR 2020 (arXiv 2006.05779); SNQN and SA2C, Xin et al., WSDM 2022 (arXiv 2111.03474);
    CQL(H), Kumar et al., NeurIPS 2020. Not as there: one trained and one target copy in place of two that are trained
    by the toss of a coin; values share the item table, through a projection of the state; all rows of a window at
    once.

    Attributes:
        steps: updates of the target copy that were due or not, which the advantage of SA2C waits for; saved.

    Examples:
        >>> model = AgentModel(AgentConfig(num_items=5, hidden_size=8, value_weight=1.0)).eval()
        >>> model.all_values(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 5])
    """

    config_class = AgentConfig
    base_model_prefix = ""
    main_input_name = "history"
    _supports_sdpa = True
    steps: Tensor

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.online = _Valued(_backbone(config))
        if config.has_target:
            self.target = copy.deepcopy(self.online)
        if config.reward_weight:
            self.reward_projection = nn.Linear(d, d)
        if config.transition_weight:
            self.transition = nn.Sequential(nn.Linear(2 * d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        if config.remaining_weight:
            self.remaining_head = nn.Linear(d, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.post_init()
        self._settle(copied=True)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`; scores equal those of the saved model to the last bit."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()  # the mapped file's memory is unaligned; see `SequentialModel`
        model._settle(copied=False)
        return loaded

    def train(self, mode: bool = True) -> AgentModel:
        """As always; the target copy stays in evaluation mode: no dropout noise in targets."""
        super().train(mode)
        if self.config.has_target:
            self.target.eval()
        return self

    def scores(self, history: Tensor) -> Tensor:
        """Scores of all items by the head that ranks, (B, N): column `j` is item `j + 1`."""
        history = history[:, -self.config.max_history :]
        return self.all_values(history) if self.config.head == "q" else self.online.backbone.scores(history)

    def all_values(self, history: Tensor) -> Tensor:
        """Q of all items, (B, N).

        Raises:
            ValueError: no part of the loss trains values.
        """
        if not self.config.has_values:
            raise ValueError("this agent has no values: none of its losses trains them")
        return self.online.all_values(self.online.backbone.last_state(history[:, -self.config.max_history :]))

    def forward(
        self,
        history: Tensor,
        target: Tensor | None = None,
        reward: Tensor | None = None,
        done: Tensor | None = None,
        remaining: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> SequentialOutput:
        """Scores; or, where targets are given, the loss.

        Args:
            history: (B, L) item ids, oldest first, padded with 0 on the left.
            target: (B, L) the item taken at each column, 0 where there is nothing to learn; those after the first
                column of a row that is no padding are the history's, one column later.
            reward: (B, L), finite.
            done: (B, L) bool, whether the episode ends with the target.
            remaining: (B, L) events of the episode after the target.
            weight: (B, L) of each target in the means; None: all alike.

        Raises:
            ValueError: wrong shapes, ids outside the catalogue, a reward that is NaN or infinite.
        """
        if target is None:
            return SequentialOutput(scores=self.scores(history))
        if reward is None or done is None or remaining is None:
            raise ValueError("an agent learns from reward, done and remaining beside the targets")
        parts = self.losses(self._transitions(history, target, reward, done, remaining, weight))
        return SequentialOutput(loss=torch.stack([w * x for w, x in parts.values()]).sum())

    def losses(self, t: Transitions) -> dict[str, tuple[float, Tensor]]:
        """Name -> weight and value of every part of the loss that is on."""
        c, online = self.config, self.online
        negatives = self._draw() if self._samples else None
        among = negatives if c.catalogue == "sampled" else None
        projected = online.projection(t.state) if c.has_values else t.state
        value = (projected * online.table[t.action]).sum(-1) + online.bias[t.action - 1]
        parts: dict[str, tuple[float, Tensor]] = {}
        if c.value_weight:
            best = self._best(t.next_state, among)
            y = td_target(t.reward, t.done, self._target_values(t.target_next, best), c.discount)
            parts["value"] = c.value_weight, td_error_loss(value, y, c.value_loss, t.weight)
        if c.negative_weight:
            parts["negative"] = c.negative_weight, self._negative_loss(t, projected, negatives, among)
        if c.conservative_weight:
            inputs = (projected, online.table, online.bias, t.action, t.weight)
            parts["conservative"] = c.conservative_weight, conservative_loss(*inputs, negatives=among)
        if c.reward_weight:
            parts["reward"] = c.reward_weight, self._reward_loss(t, negatives)
        if c.transition_weight:
            parts["transition"] = c.transition_weight, self._transition_loss(t, negatives)
        if c.imagined_weight:
            parts["imagined"] = c.imagined_weight, self._imagined_loss(t, projected, negatives, among)
        if c.cross_entropy_weight:
            parts["cross_entropy"] = c.cross_entropy_weight, self._cross_entropy(t, value, projected, negatives)
        if c.remaining_weight:
            expected = self.remaining_head(t.state).squeeze(-1)
            errors = F.huber_loss(expected, t.remaining.log1p(), reduction="none")
            parts["remaining"] = c.remaining_weight, weighted_mean(errors, t.weight)
        return parts

    @torch.no_grad()
    def after_step(self) -> None:
        """Count a step of the optimizer, and move the target copy towards the trained one when it is due."""
        self.steps += 1
        if self.config.has_target and int(self.steps) % self.config.target_every == 0:
            torch._foreach_lerp_(
                list(self.target.parameters()), list(self.online.parameters()), self.config.target_rate
            )

    # --- states ---------------------------------------------------------------------------------------------------

    def _transitions(
        self, history: Tensor, target: Tensor, reward: Tensor, done: Tensor, remaining: Tensor, weight: Tensor | None
    ) -> Transitions:
        given = {"target": target, "reward": reward, "done": done, "remaining": remaining, "weight": weight}
        for name, values in given.items():
            if values is not None and values.shape != history.shape:
                raise ValueError(
                    f"{name} must have the shape of history {tuple(history.shape)} (got {tuple(values.shape)})"
                )
        self.online.backbone._check_range(target, 0, "targets")
        if not bool(reward.isfinite().all()):
            raise ValueError("rewards must not be NaN or infinite")
        learnt, width = target != 0, history.shape[1]
        window = torch.cat([history, target[:, -1:]], 1) if self.config.has_target else history
        states = self.online.backbone.encode(window)
        with torch.no_grad():
            copied = self.target.backbone.encode(window) if self.config.has_target else states.detach()
        return Transitions(
            state=states[:, :width][learnt],
            action=target[learnt],
            reward=reward[learnt],
            done=done[learnt],
            remaining=remaining[learnt],
            weight=None if weight is None else weight[learnt],
            next_state=states[:, -width:][learnt].detach(),
            target_state=copied[:, :width][learnt],
            target_next=copied[:, -width:][learnt],
        )

    @property
    def _samples(self) -> bool:
        c = self.config
        return bool(
            c.negative_weight
            or c.reward_weight
            or c.transition_weight
            or c.imagined_weight
            or c.advantage_after is not None
            or (c.catalogue == "sampled" and c.has_values)
        )

    def _draw(self) -> Tensor:
        drawn, _ = draw_negatives(self.config.num_items, self.config.num_negatives, None, 0)
        return drawn.to(self.device)

    def _others(self, count: int) -> Tensor:
        """Rows of a batch of `count` whose states are negatives: as many as there are sampled items."""
        return torch.randint(count, (min(count, self.config.num_negatives),)).to(self.device)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _best(self, states: Tensor, among: Tensor | None) -> Tensor:
        with torch.no_grad():
            return best_actions(self.online.projection(states), self.online.table, self.online.bias, among)

    def _target_values(self, states: Tensor, actions: Tensor) -> Tensor:
        with torch.no_grad():
            return self.target.values(states, actions)

    def _of_negatives(self, projected: Tensor, negatives: Tensor) -> Tensor:
        return F.linear(projected, self.online.table[negatives], self.online.bias[negatives - 1])

    def _negative_loss(self, t: Transitions, projected: Tensor, negatives: Any, among: Tensor | None) -> Tensor:
        """SNQN: a sampled item earns nothing, and the state stays."""
        stays = self._target_values(t.target_state, self._best(t.state.detach(), among))
        y = (self.config.discount * stays)[:, None]
        return self._over_negatives(self._of_negatives(projected, negatives), y, t, negatives)

    def _over_negatives(self, values: Tensor, y: Tensor, t: Transitions, negatives: Tensor) -> Tensor:
        """Mean over sampled items that are not the one taken, then over the rows."""
        apart = (t.action[:, None] != negatives).to(values.dtype)
        kind = F.huber_loss if self.config.value_loss == "huber" else F.mse_loss
        errors = kind(values, y.expand_as(values), reduction="none") * (1.0 if kind is F.huber_loss else 0.5)
        return weighted_mean((errors * apart).sum(1) / apart.sum(1).clamp(min=1), t.weight)

    def _reward_loss(self, t: Transitions, negatives: Any) -> Tensor:
        return reward_contrast(
            self.reward_projection(t.state),
            self.online.table,
            t.action,
            t.reward,
            negatives,
            self._others(len(t.action)),
            self.config.temperature,
            t.weight,
        )

    def predicted_states(self, states: Tensor, actions: Tensor) -> Tensor:
        """g(s, a), (T, d) or (T, k, d) for actions (T,) or (T, k).

        Raises:
            ValueError: the agent has no transition model.
        """
        if not self.config.transition_weight:
            raise ValueError("this agent has no transition model: its transition_weight is 0")
        first: Any = self.transition[0]
        of_state, of_item = first.weight.split(states.shape[-1], dim=1)
        moved: Tensor = F.linear(states, of_state, first.bias)  # once for all actions of a state
        if actions.dim() == 2:
            moved = moved[:, None]
        moved = self.transition[1:](moved + F.linear(self.online.table[actions], of_item))
        return moved

    def _transition_loss(self, t: Transitions, negatives: Any) -> Tensor:
        going = ~t.done
        if not bool(going.any()):
            return t.state.sum() * 0
        state, action, reached = t.state[going], t.action[going], t.target_next[going]
        wrong = negatives[torch.randint(len(negatives), (len(action), _WRONG_ACTIONS)).to(negatives.device)]
        return transition_contrast(
            self.predicted_states(state, action),
            reached,
            self.predicted_states(state, wrong),
            wrong == action[:, None],
            self._others(len(action)),
            self.config.temperature,
            None if t.weight is None else t.weight[going],
        )

    def _imagined_loss(self, t: Transitions, projected: Tensor, negatives: Any, among: Tensor | None) -> Tensor:
        r"""Values of sampled items towards imagined targets, :math:`\hat r + \gamma \bar Q(g(s, a), a^*)`.

        The contrast's optimum is the ratio of the density of (s, a) among taken pairs to that among sampled ones, so
        the probability that an item is taken is its exponential over N times the mean exponential of sampled items;
        times the mean reward it is the reward that is expected of offering it.
        """
        with torch.no_grad():
            logits = self._reward_logits(t.state, negatives)
            probability = (logits.softmax(1) * logits.shape[1] / self.config.num_items).clamp(max=1)
            expected = probability * t.reward.mean()
            few = torch.arange(min(_WRONG_ACTIONS, len(negatives)), device=negatives.device)
            imagined = self.predicted_states(t.state, negatives[few].expand(len(t.state), -1)).flatten(0, 1)
            reached = self._target_values(imagined, self._best(imagined, among)).view(len(t.state), -1)
            y = expected[:, few] + self.config.discount * reached
        return self._over_negatives(self._of_negatives(projected, negatives[few]), y, t, negatives[few])

    def _reward_logits(self, states: Tensor, items: Tensor) -> Tensor:
        logits: Tensor = cosine(self.reward_projection(states), self.online.table[items]) / self.config.temperature
        return logits

    def _cross_entropy(self, t: Transitions, value: Tensor, projected: Tensor, negatives: Any) -> Tensor:
        backbone = self.online.backbone
        inputs = (t.state, backbone.item_embeddings, backbone.item_bias, t.action)
        after = self.config.advantage_after
        if after is None or int(self.steps) < after:
            return softmax_loss(*inputs, t.weight)
        advantage = self._advantage(t, value.detach(), projected.detach(), negatives)
        weight = advantage if t.weight is None else advantage * t.weight
        counted = weight.new_full((), len(weight)) if t.weight is None else t.weight.sum()
        return softmax_loss(*inputs, weight) * (weight.sum() / counted)  # a mean over rows, not over advantages

    def _advantage(self, t: Transitions, value: Tensor, projected: Tensor, negatives: Tensor) -> Tensor:
        """SA2C: the taken item's value over the mean of it and the sampled ones, in [0, `advantage_clip`]."""
        with torch.no_grad():
            others = self._of_negatives(projected, negatives)
            mean = (value + others.sum(1)) / (1 + len(negatives))
            return (value - mean).clamp(0, self.config.advantage_clip)

    # --- start ----------------------------------------------------------------------------------------------------

    def _settle(self, *, copied: bool) -> None:
        """What no loss reads is not trained; the target copy never is, and starts as the trained one."""
        if not self.config.has_values:
            self.online.projection.requires_grad_(False)
            self.online.bias.requires_grad_(False)
        if not self.config.cross_entropy_weight:
            self.online.backbone.item_bias.requires_grad_(False)
        if self.config.has_target:
            if copied:
                self.target.load_state_dict(self.online.state_dict())
            self.target.requires_grad_(False).eval()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, _Valued):
            init.eye_(module.projection.weight)
            init.zeros_(module.projection.bias)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AgentModel):
            init.zeros_(module.steps)


def _backbone(config: AgentConfig) -> SequentialModel:
    """A fresh backbone that looks one item further back: the state after a full window needs it."""
    kind: Any = _KINDS[config.backbone]
    options = config.backbone_options or {}
    known = kind.config_class.__dataclass_fields__
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"the backbone {config.backbone} has no option {', '.join(unknown)}")
    own: dict[str, Any] = {
        "num_items": config.num_items,
        "hidden_size": config.hidden_size,
        "max_history": config.max_history + 1,
        "dropout": config.dropout,
        "initializer_range": config.initializer_range,
    }
    backbone: SequentialModel = kind(kind.config_class(**{**own, **options}))
    return backbone
