"""Running mean and variance along the run axis, updated by whole batches."""

from __future__ import annotations

from typing import Dict, Optional, Sequence, Union

import torch
from torch import Tensor

from hepo_isaac import ranks


class RunningMeanStd:
    """Mean and variance of (S, B, K) batches, cumulative over all batches (Chan et al. 1983), in float64.

    The agent updates it once per iteration, between the policy update and the next rollout, so that it never
    moves while probability ratios are taken.
    """

    frozen: bool = False  # True: update does nothing

    def __init__(self, num_groups: int, size: int, device: torch.device) -> None:
        self.mean = torch.zeros(num_groups, size, dtype=torch.float64, device=device)
        self.var = torch.ones(num_groups, size, dtype=torch.float64, device=device)
        self.count = torch.zeros(num_groups, 1, dtype=torch.float64, device=device)

    def update(self, batch: Tensor, groups: Optional[Tensor] = None) -> None:
        """Merge a batch (S, B, K), into the groups where ``groups`` (S,) bool is true or into all."""
        var, mean = ranks.var_mean(batch.to(torch.float64), dim=1)
        self._merge(var, mean, batch.shape[1] * ranks.size(), groups)

    def update_ragged(self, batches: Sequence[Tensor]) -> None:
        """Merge Q batches (S, B_q, K) of different lengths into the groups S Q, which go run by run."""
        found = [ranks.var_mean(batch.to(torch.float64), dim=1) for batch in batches]
        var, mean = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*found))
        one = torch.ones(1, 1, dtype=torch.float64, device=mean.device)
        sizes = torch.cat([one * batch.shape[1] * ranks.size() for batch in batches])
        self._merge(var, mean, sizes.repeat(len(batches[0]), 1), None)

    def _merge(self, var: Tensor, mean: Tensor, n: Union[int, Tensor], groups: Optional[Tensor]) -> None:
        if self.frozen:
            return
        total = self.count + n
        delta = mean - self.mean
        moment = self.var * self.count + var * n + delta * delta * (self.count * n / total)
        merged = (self.mean + delta * (n / total), moment / total, total)
        for old, new in zip((self.mean, self.var, self.count), merged):
            old.copy_(new if groups is None else torch.where(groups.unsqueeze(1), new, old))

    def std(self, eps: float) -> Tensor:
        """(S, K) float32 sqrt(var + eps)."""
        return (self.var + eps).sqrt().to(torch.float32)

    def normalize(self, x: Tensor, clip: float = 5.0, eps: float = 1e-5) -> Tensor:
        """Normalise (S, B, K) and clip to +-``clip`` (rl-games' defaults)."""
        centred = x - self.mean.to(torch.float32).unsqueeze(1)
        return (centred / self.std(eps).unsqueeze(1)).clamp(-clip, clip)

    _STATE = ("mean", "var", "count")

    def state_dict(self) -> Dict[str, Tensor]:
        """mean, var and count."""
        return {name: getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name])


class ValueNormalizer(RunningMeanStd):
    """Per policy and value channel. A channel that has never varied has spread 0: its value is its mean exactly.

    Without that, a reward that has been 0 so far would give advantages made of critic noise alone.

    Args:
        target_clip: bound on targets, in spreads.
    """

    def __init__(self, num_groups: int, size: int, device: torch.device, target_clip: float = 5.0) -> None:
        super().__init__(num_groups, size, device)
        self.var.zero_()
        self._clip = target_clip

    def denormalize(self, values: Tensor, owners: Optional[Tensor] = None) -> Tensor:
        """Network output (P, B, C) -> reward units; of ``owners``, see PolicyStack.forward."""
        std, mean = self.std(0.0), self.mean.to(torch.float32)
        if owners is not None:
            std, mean = std.index_select(0, owners), mean.index_select(0, owners)
        return values * std.unsqueeze(1) + mean.unsqueeze(1)

    def normalize_targets(self, x: Tensor) -> Tensor:
        """Reward units (P, B, C) -> network targets."""
        centred = x - self.mean.to(torch.float32).unsqueeze(1)
        return (centred / self.std(0.0).clamp_min(1e-8).unsqueeze(1)).clamp(-self._clip, self._clip)
