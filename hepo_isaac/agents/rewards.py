"""What both ways of collecting share: reward channels that critics learn, their advantages, each policy's objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.potential import LearnedPotential
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods import shaping
from hepo_isaac.methods.advantages import constrained_weights, gae, lagrangian_weights
from hepo_isaac.methods.method import MethodConfig
from hepo_isaac.methods.multiplier import Multiplier
from hepo_isaac.methods.references import Window
from hepo_isaac.methods.schedules import anneal, horizon_lambda


@dataclass(frozen=True)
class IterationFacts:
    """What an iteration knows besides its rollout.

    iteration: finished ones.  total: of the whole run.
    episode_return, episode_count: (S, Q) mean J and number of the episodes that ended in this rollout, per policy; a
        number of 0 where they were short because long ones cannot have ended yet.
    window: what the last whole episodes of every env say, for methods that compare by them.
    """

    iteration: int = 0
    total: int = 1
    episode_return: Optional[Tensor] = None
    episode_count: Optional[Tensor] = None
    window: Optional[Window] = None


class RewardChannels:
    """From the r and h of a rollout to what critics fit and policies maximise.

    Args:
        multiplier: alpha, which weighs r in a constrained objective.  potential: of shaping.potential=learned.
    """

    def __init__(
        self,
        method: MethodConfig,
        train: TrainConfig,
        multiplier: Multiplier,
        potential: Optional[LearnedPotential] = None,
    ) -> None:
        self._method, self._train, self._multiplier, self._potential = method, train, multiplier, potential

    def heuristic_weight(self, facts: IterationFacts) -> float:
        """lambda, annealed."""
        s = self._method.shaping
        if s.annealing == "none":
            return self._method.heuristic_weight
        factor = anneal(facts.iteration, facts.total, s.annealing, s.annealing_fraction)
        return self._method.heuristic_weight * factor

    def discount(self, facts: IterationFacts) -> float:
        """gamma, or HuRL's shorter one."""
        return self._train.gamma * self._horizon_lambda(facts)

    def _horizon_lambda(self, facts: IterationFacts) -> float:
        s = self._method.shaping
        if s.kind != "horizon":
            return 1.0
        return horizon_lambda(facts.iteration, facts.total, s.horizon_initial, s.horizon_rate, s.schedule)

    # -- channels ----------------------------------------------------------------------------------------------
    def fit_potential(self, buffer: RolloutBuffer, facts: IterationFacts) -> None:
        """Let a learned potential learn from the rollout; others have nothing to learn."""
        if self._potential is not None:
            weighted = self.heuristic_weight(facts) * buffer.rewards[..., 1]
            self._potential.learn(buffer, weighted, self._train.gamma)

    def channels(self, buffer: RolloutBuffer, facts: IterationFacts) -> Tensor:
        """(T', B, n, 2) rewards of the two value channels, [r, h] or [r, shaped]; T' = T - 1 where the shaping looks
        one step ahead."""
        kind, weight, gamma = self._method.shaping.kind, self.heuristic_weight(facts), self._train.gamma
        if kind == "none":
            return buffer.rewards
        r, h = buffer.rewards[..., 0], weight * buffer.rewards[..., 1]
        if kind == "sum":
            shaped = r + h
        elif kind == "horizon":
            shaped = shaping.horizon_reward(r, h, buffer.terminated, gamma, self._horizon_lambda(facts))
        else:
            extra = self._potential_difference(buffer, h, weight, gamma)
            shaped = r[: len(extra)] + extra
        return torch.stack((r[: len(shaped)], shaped), -1)

    def _potential_difference(self, buffer: RolloutBuffer, h: Tensor, weight: float, gamma: float) -> Tensor:
        """F of potential-based shaping with lambda h (or lambda Phi)."""
        s = self._method.shaping
        if s.potential == "state":
            scale = weight * s.potential_scale
            return shaping.state_potential(
                scale * buffer.potential, scale * buffer.final_potential, buffer.terminated, gamma
            )
        if s.potential == "learned":
            assert self._potential is not None
            return s.potential_scale * self._potential.shaping(buffer, gamma)
        return shaping.look_ahead_potential(h, buffer.terminated, buffer.time_out, gamma, s.potential_scale)

    # -- advantages --------------------------------------------------------------------------------------------
    def advantages(
        self,
        buffer: RolloutBuffer,
        rewards: Tensor,
        values: Tensor,
        last: Tensor,
        final: Tensor,
        gamma: float,
        gae_lambda: Optional[float] = None,
    ) -> Tensor:
        """GAE (T, ..., 2) with the method's treatment of time limits; a last step without a reward gets 0.

        Args:
            rewards: (T', ..., 2) of the channels.  values: (T, ..., 2).  last: (..., 2) after the last step.
            final: (T, ..., 2) of the observation that a time limit cut off.
        """
        steps = len(rewards)
        if steps < len(values):
            last = values[steps]
        flags = [buffer.terminated[:steps], buffer.time_out[:steps]]
        if values.dim() == 5:  # policies that take turns share the flags: (T, S, 1, n)
            flags = [f.unsqueeze(2) for f in flags]
        terminated, time_out, final = self.time_limits(flags[0], flags[1], final, values)
        lam = self._train.tau if gae_lambda is None else gae_lambda
        found = gae(rewards, values[:steps], last, terminated, time_out, final[:steps], gamma, lam)
        return torch.cat((found, torch.zeros_like(values[steps:])), 0)

    def time_limits(
        self, terminated: Tensor, time_out: Tensor, final: Tensor, values: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """(terminated, time_out, final values) as the method sees time limits, see ``advantages``."""
        how = self._method.timeout_bootstrap
        if how == "none" or (how == "rl_games" and not self._train.value_bootstrap):
            return terminated | time_out, torch.zeros_like(time_out), final
        if how == "rl_games":
            final = values
        return terminated, time_out, final

    def objective_weights(self, facts: IterationFacts) -> Tensor:
        """(P, 2) weight of each channel's advantage in each policy's objective."""
        m = self._method
        lam, alpha = self.heuristic_weight(facts), self._multiplier.value
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        rows: List[Tensor] = []
        for objective in m.objectives:
            if objective == "constrained":
                rows.append(constrained_weights(alpha, lam, m.mixing))
            elif objective == "lagrangian":
                rows.append(lagrangian_weights(alpha))
            elif objective == "task":
                rows.append(torch.stack((one, zero), -1))
            elif objective == "heuristic" or m.sum_reward:
                rows.append(torch.stack((zero, one), -1))
            else:
                rows.append(torch.stack((one, lam * one), -1))
        return torch.stack(rows, 1).flatten(0, 1)
