"""What changes with the iteration alone: HuRL's horizon and the weight of an annealed heuristic. Plain floats."""

from __future__ import annotations

import math

HORIZON_SCHEDULES = ("constant", "linear", "tanh", "exponential_average")
ANNEALING_SCHEDULES = ("constant", "linear", "cosine", "exponential")
# HuRL's tanh schedule is scaled so that it would be at this share of its asymptote when it ends.
_TANH_LIMIT = 0.99
# Where the exponential schedule stands at its end, before it is cut to 0.
_EXPONENTIAL_END = 0.01


def horizon_lambda(iteration: int, total: int, initial: float, rate: float, kind: str) -> float:
    """HuRL's lambda in [0, 1] (Cheng et al. 2021; the schedules of microsoft/HuRL), n = ``iteration`` from 0.

    With N = rate * total iterations:
      constant             initial
      linear               initial + (1 - initial) min(1, n / N)
      tanh                 initial + (1 - initial) min(1, tanh(n / max(1, N - 1) * artanh 0.99) / 0.99)
      exponential_average  lambda <- lambda + (1 - lambda) / N each iteration, from initial; 1 / N at most 1

    A ``rate`` of 1 reaches 1 (tanh, linear) at the end of training, a large one stays at ``initial``, and a tiny one
    is plain RL from iteration 1 on.
    """
    if kind not in HORIZON_SCHEDULES:
        raise ValueError("unknown horizon schedule %r; valid: %s" % (kind, ", ".join(HORIZON_SCHEDULES)))
    if rate <= 0.0:
        raise ValueError("the horizon's rate must be > 0, got %r" % rate)
    length = rate * total
    rest = 1.0 - initial
    if kind == "constant":
        value = initial
    elif kind == "linear":
        value = initial + rest * min(1.0, iteration / length)
    elif kind == "tanh":
        reached = math.tanh(iteration / max(1.0, length - 1.0) * math.atanh(_TANH_LIMIT)) / _TANH_LIMIT
        value = initial + rest * min(1.0, reached)
    else:
        value = 1.0 - rest * (1.0 - min(1.0, 1.0 / length)) ** iteration
    return min(1.0, max(0.0, value))


def anneal(iteration: int, total: int, kind: str, fraction: float) -> float:
    """Weight of the heuristic: 1 at iteration 0, and 0 once the first ``fraction`` of training is over.

    With x = iteration / (fraction * total), and 0 from x = 1 on:
      constant     1, so first both, then the task alone; with fraction = 1 it never ends
      linear       1 - x
      cosine       (1 + cos(pi x)) / 2
      exponential  0.01^x, down to one per cent, then cut to 0
    """
    if kind not in ANNEALING_SCHEDULES:
        raise ValueError("unknown annealing schedule %r; valid: %s" % (kind, ", ".join(ANNEALING_SCHEDULES)))
    if not 0.0 < fraction <= 1.0:
        raise ValueError("the annealing fraction must be in (0, 1], got %r" % fraction)
    x = iteration / (fraction * total)
    if x >= 1.0:
        return 0.0
    if kind == "linear":
        return 1.0 - x
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * x))
    if kind == "exponential":
        return _EXPONENTIAL_END**x
    return 1.0
