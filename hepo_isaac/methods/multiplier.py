"""The Lagrange multiplier of the constraint J(pi) >= J(pi_H), entirely on the device.

L = (1+alpha) J(pi) + H(pi) - alpha J(pi_H): alpha descends on the gap g = J(pi) - J(pi_H), so it rises only
while pi is worse than pi_H. The gap is smoothed by the median of the last K records and stepped with Adam.
Source: arXiv 2507.05328; what is mended against the released code is listed in docs/differences.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

import torch
from torch import Tensor


@dataclass(frozen=True)
class MultiplierConfig:
    """init: alpha at the start.  lr: Adam step.  minimum, maximum: projection interval.
    median_window: K.  median: "midpoint" (unbiased) or "lower" (torch.median, biased low; the release).
    gradient_clip: |g| is clipped to this.  betas: Adam's.
    """

    init: float = 0.0
    lr: float = 0.01
    minimum: float = 0.0
    maximum: float = 100.0
    median_window: int = 8
    median: str = "midpoint"
    gradient_clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


class Multiplier:
    """S independent multipliers, one per run, as (S,) tensors; nothing here reads a value on the host."""

    def __init__(self, config: MultiplierConfig, num_runs: int, device: torch.device) -> None:
        if config.minimum <= -1.0:
            raise ValueError("alpha's minimum must be > -1 (1 + alpha divides), got %r" % config.minimum)
        if config.median not in ("midpoint", "lower"):
            raise ValueError("unknown median %r; valid: midpoint, lower" % config.median)
        self.config = config
        self.value = torch.full((num_runs,), float(config.init), device=device)
        self.gradient = torch.zeros(num_runs, device=device)
        self._m = torch.zeros(num_runs, device=device)
        self._v = torch.zeros(num_runs, device=device)
        self._step = torch.zeros((), device=device)
        # Unfilled places hold +inf, so sorting pushes them behind the records.
        self._records = torch.full((num_runs, config.median_window), float("inf"), device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def record(self, gap: Tensor) -> None:
        """Append one estimate (S,) of J(pi) - J(pi_H)."""
        window = self.config.median_window
        slot = torch.arange(window, device=gap.device) == self._count % window
        self._records.copy_(torch.where(slot, gap.unsqueeze(1), self._records))
        self._count += 1

    def median(self) -> Tensor:
        """(S,) median of the records so far, at most the last K."""
        filled = torch.clamp(self._count, max=self.config.median_window)
        ordered = self._records.sort(1).values
        low = torch.clamp((filled - 1) // 2, min=0).expand(len(ordered), 1)
        high = torch.clamp(filled // 2, min=0).expand(len(ordered), 1)
        lower = ordered.gather(1, low).squeeze(1)
        if self.config.median == "lower":
            return lower
        return 0.5 * (lower + ordered.gather(1, high).squeeze(1))

    def update(self) -> None:
        """One projected Adam descent step on the median; call once per iteration, after the policy update."""
        c = self.config
        self.gradient.copy_(self.median().clamp(-c.gradient_clip, c.gradient_clip))
        self._step += 1
        self._m.mul_(c.beta1).add_(self.gradient, alpha=1 - c.beta1)
        self._v.mul_(c.beta2).addcmul_(self.gradient, self.gradient, value=1 - c.beta2)
        m_hat = self._m / (1 - c.beta1**self._step)
        v_hat = self._v / (1 - c.beta2**self._step)
        self.value.sub_(c.lr * m_hat / (v_hat.sqrt() + c.eps)).clamp_(c.minimum, c.maximum)

    _STATE = ("value", "gradient", "_m", "_v", "_step", "_records", "_count")

    def state_dict(self) -> Dict[str, Tensor]:
        """All tensors of the multiplier: alpha, Adam's moments and step, and the record buffer."""
        return {name.strip("_"): getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name.strip("_")])
