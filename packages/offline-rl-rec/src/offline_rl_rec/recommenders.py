"""The agents as recommenders: SQN, SNQN, SA2C, CQL, MCRL, the backbone alone, and the control without rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from offline_rl_rec.configuration import AgentOptions
from offline_rl_rec.modeling import AgentModel
from offline_rl_rec.sessions import RewardRule, Sessions
from offline_rl_rec.windows import SessionWindows
from predilect.configuration import new_defaults, option
from predilect.data.splits import SequenceSplits
from predilect.recommender import RecommenderConfig
from predilect.recommenders.sequential import NextItemRecommender, NextItemRecommenderConfig
from predilect.training import NextItemRows, NextItemTrainer, NextItemWindows

REWARDS = "Rewards"


@dataclass
@new_defaults(learning_rate=2e-3)
class AgentRecommenderConfig(AgentOptions, NextItemRecommenderConfig):
    """Options of `Agent`."""

    stride: int | None = option(
        "Rows that each further window of a user adds; none: half of max_history.", default=None
    )
    click_reward: float = option("Reward of a click.", panel=REWARDS, default=0.2)
    purchase_reward: float = option("Reward of a purchase.", panel=REWARDS, default=1.0)
    liked: float | None = option(
        "Where the log has ratings only: the lowest that counts as a purchase; none: 0.8 of the highest.",
        panel=REWARDS,
        default=None,
    )
    purchases: tuple[str, ...] = option(
        "Names of behaviours that are purchases.", panel=REWARDS, default=RewardRule().purchases
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_options()
        self.purchases = tuple(self.purchases)  # JSON gives lists
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride must be at least 1 (got {self.stride})")
        _ = self.rule  # checks the rest

    @property
    def rule(self) -> RewardRule:
        """What an event is worth."""
        return RewardRule(self.click_reward, self.purchase_reward, self.liked, self.purchases)

    @property
    def needs_rewards(self) -> bool:
        """Whether any part of the loss reads rewards."""
        return bool(self.has_values or self.reward_weight)


class _TargetCopy(TrainerCallback):
    """Moves the target copy after each step of the optimizer."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        getattr(model, "module", model).after_step()


class AgentTrainer(NextItemTrainer):
    """`NextItemTrainer` that keeps the target copy, and logs `eval_max_q`: beside realised returns it shows
    overestimation as it grows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_TargetCopy())

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`ndcg@10` on the validation rows, and the mean of the largest value in each of their states."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if not self.model.config.has_values:
            return metrics
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        highest = {f"{metric_key_prefix}_max_q": float(max_values(self.model, rows).mean())}
        self.log(dict(highest))
        return {**metrics, **highest}


@torch.inference_mode()
def max_values(model: AgentModel, rows: NextItemRows, batch_size: int = 1024) -> np.ndarray:
    r"""(R,) :math:`\max_a Q(s, a)` before each row."""
    model.eval()
    highest = [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(rows), batch_size):
        histories = rows.rows.histories(slice(start, start + batch_size))
        highest.append(model.all_values(histories.to(model.device)).amax(1).float().cpu().numpy())
    return np.concatenate(highest)


class Agent(NextItemRecommender[AgentRecommenderConfig]):
    """An agent of any weights; the registered ones are choices of them.

    The epoch is chosen by `ndcg@10` of the head that ranks, on validation rows, as for every backbone of the core.
    """

    name = "rl-plain"
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"
    config_class: ClassVar[type[RecommenderConfig]] = AgentRecommenderConfig
    model_class = AgentModel
    trainer_class = AgentTrainer

    def unsuited(self, splits: SequenceSplits) -> str | None:
        """Why the log has no rewards to learn from; None if it has, or none are needed."""
        try:
            self._sessions(splits)
        except ValueError as error:
            return str(error)
        return None

    def _require(self, data: SequenceSplits) -> None:
        self._sessions(data)

    def _sessions(self, splits: SequenceSplits) -> Sessions:
        if self.config.needs_rewards:
            return Sessions.of(splits.train, self.config.rule)
        events = len(splits.sequences.items)
        return Sessions(splits.sequences, np.zeros(events, dtype=bool), np.zeros(events, dtype=np.float32))

    def _train_dataset(self, splits: SequenceSplits) -> NextItemWindows:
        return SessionWindows(splits.train, self._sessions(splits), stride=self.config.stride)

    def _score(self, histories: Tensor) -> Tensor:
        scores: Tensor = self.model.scores(histories)
        return scores

    def values(self, histories: Tensor) -> Tensor:
        """Q of all items, (B, N); column `j` is item `j + 1`.

        Args:
            histories: (B, L) item ids, oldest first, padded with 0 on the left.

        Raises:
            ValueError: no part of the agent's loss trains values.
        """
        with torch.no_grad():
            q: Tensor = self.model.all_values(histories.to(self.device)).float().to(histories.device)
        return q


@dataclass
@new_defaults(remaining_weight=0.1)
class RemainingItemsConfig(AgentRecommenderConfig):
    """Options of `RemainingItems`."""


class RemainingItems(Agent):
    """The control: an auxiliary task without rewards, predicting log(1 + remaining events of the session).

    Source: Labarca et al., "On the Unexpected Effectiveness of Reinforcement Learning for Sequential Recommendation",
    ICML 2024: much of what SQN and its like gain is gained by an auxiliary head that is no reinforcement learning. The
    task here is one of that kind; a gain of an agent counts only beyond it.
    """

    name = "rl-control"
    config_class: ClassVar[type[RecommenderConfig]] = RemainingItemsConfig


@dataclass
@new_defaults(value_weight=1.0)
class SQNConfig(AgentRecommenderConfig):
    """Options of `SQN`."""


class SQN(Agent):
    """Self-supervised Q-learning: cross-entropy plus the temporal difference; see `AgentModel`.

    Source: Xin et al., "Self-Supervised Reinforcement Learning for Recommender Systems", SIGIR 2020 (arXiv
    2006.05779).
    """

    name = "sqn"
    config_class: ClassVar[type[RecommenderConfig]] = SQNConfig


@dataclass
@new_defaults(negative_weight=1.0)
class SNQNConfig(SQNConfig):
    """Options of `SNQN`."""


class SNQN(SQN):
    """SQN with sampled negative actions.

    Source: Xin et al., "Supervised Advantage Actor-Critic for Recommender Systems", WSDM 2022 (arXiv 2111.03474). Not
    as there: negatives are shared by the batch, and their errors are averaged, not summed.
    """

    name = "snqn"
    config_class: ClassVar[type[RecommenderConfig]] = SNQNConfig


@dataclass
@new_defaults(advantage_after=500)
class SA2CConfig(SNQNConfig):
    """Options of `SA2C`."""


class SA2C(SNQN):
    """SNQN whose cross-entropy is weighted by the advantage of the taken item, after some steps.

    Source: Xin et al., WSDM 2022 (arXiv 2111.03474). Not as there: advantages below 0 weigh 0, where the authors' code
    lets them push the taken item away; no smoothing by propensity.
    """

    name = "sa2c"
    config_class: ClassVar[type[RecommenderConfig]] = SA2CConfig


@dataclass
@new_defaults(value_weight=1.0, conservative_weight=1.0, cross_entropy_weight=0.0, head="q")
class CQLConfig(AgentRecommenderConfig):
    """Options of `CQL`."""


class CQL(Agent):
    """Discrete conservative Q-learning, CQL(H), which ranks by values.

    Source: Kumar et al., NeurIPS 2020 (arXiv 2006.04779).
    """

    name = "cql"
    config_class: ClassVar[type[RecommenderConfig]] = CQLConfig


@dataclass
@new_defaults(reward_weight=0.1, transition_weight=0.1)
class MCRLConfig(CQLConfig):
    """Options of `MCRL`."""


class MCRL(CQL):
    """Our reconstruction of MCRL: conservative values, and contrastive models of reward and of transition.

    The paper's full text is not public, and there is no code: only its abstract says what the method consists of. The
    losses, their weights and the way they are joined are ours, after the verified lineage (SQN, SNQN, CQL). No number
    of the paper is known, and none of this agent's results is a reproduction of any.

    Source: the abstract of Li et al., "Model-enhanced Contrastive Reinforcement Learning for Sequential
    Recommendation", 2023 (arXiv 2310.16566).
    """

    name = "mcrl"
    config_class: ClassVar[type[RecommenderConfig]] = MCRLConfig
