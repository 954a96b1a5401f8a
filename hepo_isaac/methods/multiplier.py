"""The Lagrange multiplier of the constraint J(pi) >= J(pi_H), entirely on the device.

L = (1+alpha) J(pi) + H(pi) - alpha J(pi_H): alpha descends on the gap g = J(pi) - J(pi_H), so it rises only
while pi is worse than pi_H. The gap is smoothed by the median of the last K records and stepped with Adam.
Source: arXiv 2507.05328; what is mended against the released code is listed in docs/differences.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor

RULES = ("adam", "sgd", "pid", "significance")
MEDIANS = ("midpoint", "lower")


# Adam's constants; the step is ``lr``.
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class MultiplierConfig:
    """How alpha (or nu) follows its constraint; read where the method has one.

    init: alpha at the start.
    rule: descent on the gap by "adam" or "sgd", "pid" on the violation (Stooke et al. 2020), or "significance" for gaps
        in standard errors: alpha rises by what a violation exceeds z and falls with any lead, so that noise lets it
        fall.
    lr: step of the descent.
    z: standard errors of a violation that "significance" takes for noise.
    minimum: lower bound of alpha; one below 0 needs allow_negative.
    maximum: upper bound of alpha.
    allow_negative: accept a minimum below 0, which rewards violating the constraint (as released).
    median_window: K, alpha follows the median of the last K estimates.
    median: "midpoint" (unbiased) or "lower" (torch.median, biased low; as released).
    gradient_clip: the median is clipped to plus and minus this.
    kp, ki, kd: gains of "pid" on the violation e = -g: kp e + ki sum(e) + kd (e - previous e), at least 0.
    """

    init: float = 0.0
    rule: str = "adam"
    lr: float = 0.01
    minimum: float = 0.0
    maximum: float = 100.0
    allow_negative: bool = False
    median_window: int = 8
    median: str = "midpoint"
    gradient_clip: float = 1.0
    z: float = 2.0
    kp: float = 1.0
    ki: float = 0.1
    kd: float = 0.0

    def __post_init__(self) -> None:
        if self.minimum <= -1.0:
            raise ValueError("alpha's minimum must be > -1 (1 + alpha divides), got %r" % self.minimum)
        if self.minimum < 0.0 and not self.allow_negative:
            raise ValueError(
                "algo.multiplier.minimum must not be negative (alpha is a Lagrange multiplier of J(pi) >= J(pi_H), and "
                "a negative one would reward violating it), got %s; algo.multiplier.allow_negative=true insists"
                % self.minimum
            )
        if not self.minimum <= self.init <= self.maximum:
            raise ValueError(
                "algo.multiplier.init=%s must not be negative nor outside [minimum, maximum] = [%s, %s]"
                % (self.init, self.minimum, self.maximum)
            )
        if not self.lr >= 0.0:
            raise ValueError("algo.multiplier.lr must not be negative, got %s" % self.lr)
        if self.median_window < 1:
            raise ValueError("algo.multiplier.median_window must be >= 1, got %s" % self.median_window)
        for name, value, valid in (("rule", self.rule, RULES), ("median", self.median, MEDIANS)):
            if value not in valid:
                raise ValueError("unknown algo.multiplier.%s %r; valid: %s" % (name, value, ", ".join(valid)))


class Multiplier:
    """S independent multipliers, one per run, as (S,) tensors; nothing here reads a value on the host.

    Attributes:
        value, gradient: (S,) alpha, and what it last descended on.
        records: (S, K) the last K estimates, written in turn; +inf where there is none yet.  count: (S,) so far.
    """

    def __init__(self, config: MultiplierConfig, num_runs: int, device: torch.device) -> None:
        self.config = config
        self.value = torch.full((num_runs,), float(config.init), device=device)
        self.gradient = torch.zeros(num_runs, device=device)
        self._m = torch.zeros(num_runs, device=device)  # Adam's mean, or the last violation of "pid"
        self._v = torch.zeros(num_runs, device=device)  # Adam's square, or the integral of "pid"
        self._step = torch.zeros(num_runs, device=device)
        # Unfilled places hold +inf, so sorting pushes them behind the records.
        self.records = torch.full((num_runs, config.median_window), float("inf"), device=device)
        self.count = torch.zeros(num_runs, dtype=torch.int64, device=device)

    def record(self, gap: Tensor, valid: Optional[Tensor] = None) -> None:
        """Append one estimate (S,) of J(pi) - J(pi_H) to the runs where ``valid`` (S,) bool is true, or to all."""
        window = self.config.median_window
        place = torch.arange(window, device=gap.device).unsqueeze(0) == (self.count % window).unsqueeze(1)
        if valid is not None:
            place = place & valid.unsqueeze(1)
        self.records.copy_(torch.where(place, gap.unsqueeze(1), self.records))
        self.count += 1 if valid is None else valid

    def median(self) -> Tensor:
        """(S,) median of the records so far, at most the last K; 0 before the first."""
        filled = self.count.clamp(max=self.config.median_window).unsqueeze(1)
        ordered = self.records.sort(1).values
        middle = ordered.gather(1, ((filled - 1) // 2).clamp(min=0)).squeeze(1)
        if self.config.median == "midpoint":
            upper = ordered.gather(1, (filled // 2).clamp(max=self.config.median_window - 1)).squeeze(1)
            middle = 0.5 * (middle + upper)
        return torch.where(self.count > 0, middle, torch.zeros_like(middle))

    def update(self, valid: Optional[Tensor] = None) -> None:
        """One projected step on the median; call once per iteration, after the policy update.

        Args:
            valid: (S,) bool, the runs to step; None is all. A run without a record stands still.
        """
        c = self.config
        moves = self.count > 0 if valid is None else valid & (self.count > 0)
        gradient = self.median().clamp(-c.gradient_clip, c.gradient_clip)
        step, m, v, value = self._stepped(gradient)
        for old, new in (
            (self.gradient, gradient),
            (self._step, step),
            (self._m, m),
            (self._v, v),
            (self.value, value.clamp(c.minimum, c.maximum)),
        ):
            old.copy_(torch.where(moves, new, old))

    def _stepped(self, gradient: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Next (step, m, v, value before projection)."""
        c, step = self.config, self._step + 1
        if c.rule == "sgd":
            return step, self._m, self._v, self.value - c.lr * gradient
        if c.rule == "significance":
            beyond = (gradient + c.z).clamp(max=0.0) + gradient.clamp(min=0.0)
            return step, self._m, self._v, self.value - c.lr * beyond
        if c.rule == "pid":
            violation = -gradient
            # The integral stops where the multiplier is at its bound (anti-windup).
            integral = (self._v + violation).clamp(0.0, c.maximum / max(c.ki, 1e-12))
            change = torch.where(self._step > 0, violation - self._m, torch.zeros_like(violation))
            return step, violation, integral, c.kp * violation + c.ki * integral + c.kd * change
        m = BETA1 * self._m + (1 - BETA1) * gradient
        v = BETA2 * self._v + (1 - BETA2) * gradient * gradient
        m_hat, v_hat = m / (1 - BETA1**step), v / (1 - BETA2**step)
        return step, m, v, self.value - c.lr * m_hat / (v_hat.sqrt() + EPS)

    _STATE = ("value", "gradient", "_m", "_v", "_step", "records", "count")

    def state_dict(self) -> Dict[str, Tensor]:
        """All tensors of the multiplier, each with one row per run."""
        return {name.strip("_"): getattr(self, name).clone() for name in self._STATE}

    def load_state_dict(self, state: Dict[str, Tensor]) -> None:
        """Restore what state_dict returned."""
        for name in self._STATE:
            getattr(self, name).copy_(state[name.strip("_")])
