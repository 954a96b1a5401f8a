"""What halves and turns have in common: what they are made of, and what the learner asks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, Optional

from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.minibatch import Batch
from hepo_isaac.agents.policies import Acted, Policies
from hepo_isaac.agents.rewards import IterationFacts, RewardChannels
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier


class Collection(ABC):
    """Turns rollouts into batches, and tells the multiplier of the gap.

    Args:
        policies, rewards, multiplier: a learner's.
    """

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        policies: Policies,
        rewards: RewardChannels,
        multiplier: Multiplier,
    ) -> None:
        self.method, self.train = method, train
        self.policies, self.rewards, self.multiplier = policies, rewards, multiplier
        # (S,) bool: whether this rollout told of the gap, where that depends on episodes; None: it always does.
        self._recorded: Optional[Tensor] = None
        # (P,) bool: whose weights evidence replaced by another's in this iteration; None: never anyone's.
        self.replaced: Optional[Tensor] = None

    @abstractmethod
    def act(self, obs: Tensor, noise: Tensor) -> Acted:
        """Blocks (B, n, .) of envs, each by whom it belongs to, see Policies.act."""

    def acting(self) -> Optional[Tensor]:
        """(S,) index of the policy that acts now, for methods whose policies take turns; None: every block its own."""
        return None

    @abstractmethod
    def batch(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> Batch:
        """Advantages, targets and alpha's record of a full rollout; moves the value statistics.

        Args:
            last_obs: (B, n, O) observation after the last step.
        """

    @abstractmethod
    def record_after_update(self, buffer: RolloutBuffer, last_obs: Tensor, facts: IterationFacts) -> None:
        """The second release's record: the contrast measured with the critics the update left behind."""

    def after_update(self, batch: Batch) -> Optional[Tensor]:
        """Called between the policy update and the multiplier's; (S,) bool runs whose multiplier may move, or None.

        It stands still in an iteration that says nothing about the gap: no episode ended, or none began.
        """
        return self._recorded

    def look(self, facts: IterationFacts) -> Optional[Tensor]:
        """What the windows of episodes say; (P,) int64, the policy that each one's weights are taken from from now on
        (itself: none), or None where no policy ever takes another's."""
        return None

    def metrics(self) -> Dict[str, Tensor]:
        """(S,) what there is to report besides the multiplier."""
        return {}

    def policy_metrics(self) -> Dict[str, Tensor]:
        """(P,) what there is to report of every policy besides its update."""
        return {}

    def finish_iteration(self) -> None:
        """Called last."""

    def state_dict(self) -> Dict[str, Any]:
        """State kept across iterations."""
        return {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
