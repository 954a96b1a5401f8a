"""A potential Phi(s, a) learned by TD on -h, one network per policy (Harutyunyan et al. 2015)."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import torch
from torch import Tensor

from hepo_isaac.agents.network import PolicyStack
from hepo_isaac.agents.normalizer import RunningMeanStd
from hepo_isaac.agents.optimizer import StackedAdam
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.shaping import learned_potential_target, state_potential

LEARNING_RATE = 1e-3
GRADIENT_STEPS = 4  # full-batch steps of SARSA per iteration


class LearnedPotential:
    """Args:
    num_policies, num_obs, num_actions, units, activation: as for the policies.  obs_norm: their normaliser.
    """

    def __init__(
        self,
        num_policies: int,
        num_obs: int,
        num_actions: int,
        units: Sequence[int],
        activation: str,
        obs_norm: RunningMeanStd,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self._obs_norm = obs_norm
        size = num_obs + num_actions
        self.net = PolicyStack(num_policies, size, 0, 1, units, activation, generators, device)
        self.optimizer = StackedAdam(self.net.flat, torch.full((num_policies,), LEARNING_RATE, device=device))

    def _phi(self, buffer: RolloutBuffer) -> Tensor:
        """(T, P, n)."""
        obs = self._obs_norm.normalize(buffer.rows(buffer.obs))
        rows = torch.cat((obs, buffer.rows(buffer.actions)), -1)
        return self.net(rows)[1].view(buffer.num_blocks, buffer.horizon, -1).transpose(0, 1)

    @torch.enable_grad()
    def learn(self, buffer: RolloutBuffer, h: Tensor, gamma: float) -> None:
        """Full-batch steps of SARSA on reward -h (T, P, n), of one rollout."""
        for _ in range(GRADIENT_STEPS):
            self.optimizer.zero_grad()
            phi = self._phi(buffer)
            following = torch.where(buffer.time_out[:-1], phi[:-1], phi[1:])
            target = learned_potential_target(h[:-1], following.detach(), buffer.terminated[:-1], gamma)
            error = (phi[:-1] - target) ** 2 * (~buffer.time_out[:-1])
            error.mean(dim=(0, 2)).sum().backward()
            self.optimizer.step(1.0)

    @torch.no_grad()
    def shaping(self, buffer: RolloutBuffer, gamma: float) -> Tensor:
        """F (T - 1, P, n) = gamma Phi(s', a') - Phi(s, a).

        The step before a time limit has no next action: there the last potential is kept, as for the immediate one.
        """
        phi = self._phi(buffer)
        following = torch.where(buffer.time_out[:-1], phi[:-1], phi[1:])
        return state_potential(phi[:-1], following, buffer.terminated[:-1], gamma)

    def state_dict(self) -> Dict[str, Any]:
        """Weights and optimiser."""
        return {"flat": self.net.flat.detach().clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        with torch.no_grad():
            self.net.flat.copy_(state["flat"])
        self.optimizer.load_state_dict(state["optimizer"])
