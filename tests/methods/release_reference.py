"""What the released HEPO computes from one rollout, restated plainly so that the learner can be held to it.

Two variants are published: "main" (commit 5bb4244) and "later" (commit cf429822). Written from the description of
what they do, not from our learner, in numpy float64 with explicit loops. One function per step, in order:

    shape_rewards -> gae -> whiten -> mix -> exchange            the advantages each policy trains on
                        |-> value_targets                        what each critic is regressed on
    record_main / record_later -> alpha_gradient -> alpha_step   the multiplier

Index conventions: policy 0 is pi, 1 is pi_H; channel 0 is the task reward r, 1 the heuristic h. T steps, N envs (even),
the first N/2 driven by pi, the rest by pi_H, for the whole training. Rows are env-major: row n * T + t.

What is left out because it needs networks: the losses themselves, observation and value normalisation, learning rates.
One more oddity is not restated: if the h rewards of the whole batch (bootstraps included) sum to exactly 0, main sets
the *normalised* h targets to 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median_low
from typing import List, Optional

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

PI, REFERENCE = 0, 1
TASK, HEURISTIC = 0, 1
WINDOW = 8


@dataclass(frozen=True)
class Rollout:
    """rewards (T, N, 2) [r, h], already scaled.
    values (2, T, N, 2): both policies' critics on the observations acted on, in reward units, on *all* envs.
    last_values (2, N, 2): on the observations after the last step.
    terminated, time_out (T, N): step t ended the episode, and how; exclusive.
    final_values (2, T, N, 2): on the observation each episode ended in; read at time-outs by "final_obs" only.
    """

    rewards: Array
    values: Array
    last_values: Array
    terminated: Flags
    time_out: Flags
    final_values: Optional[Array] = None

    @property
    def done(self) -> Flags:
        """(T, N): the release makes no difference between the two ends."""
        return self.terminated | self.time_out


def shape_rewards(rollout: Rollout, gamma: float, timeout_bootstrap: str) -> Array:
    """(2, T, N, 2) rewards as each policy's critics see them.

    "rl_games": at time-outs gamma V_k(s_t) is added, V of the state *before* the step, each policy with its own two
    critics, on both halves; "none": nothing is (FrankaCabinet, Quadcopter, Ingenuity); "final_obs" (not in the
    release): gamma V_k(s_final). In every case the step then counts as an end.
    """
    shaped = np.stack((rollout.rewards, rollout.rewards))
    at_limit = rollout.time_out[None, :, :, None]
    if timeout_bootstrap == "rl_games":
        return np.where(at_limit, shaped + gamma * rollout.values, shaped)
    if timeout_bootstrap == "final_obs":
        assert rollout.final_values is not None
        return np.where(at_limit, shaped + gamma * rollout.final_values, shaped)
    assert timeout_bootstrap == "none"
    return shaped


def gae(rewards: Array, values: Array, last_values: Array, done: Flags, gamma: float, tau: float) -> Array:
    """(T, N, C) advantages of one policy's critics: A_t = sum_l (gamma tau)^l delta_{t+l}, up to the episode's end.

    No importance weights, so on the rows the other policy drove this is that policy's return against this critic.

    Args:
        rewards, values: (T, N, C).  last_values: (N, C).  done: (T, N).
    """
    horizon, envs = done.shape
    advantages = np.zeros_like(rewards)
    for n in range(envs):
        for t in range(horizon):
            weight = 1.0
            for step in range(t, horizon):
                successor = values[step + 1, n] if step + 1 < horizon else last_values[n]
                if done[step, n]:
                    successor = np.zeros_like(successor)
                advantages[t, n] += weight * (rewards[step, n] + gamma * successor - values[step, n])
                if done[step, n]:
                    break
                weight *= gamma * tau
    return advantages


def all_advantages(rollout: Rollout, gamma: float, tau: float, timeout_bootstrap: str) -> Array:
    """(2, T, N, 2) raw advantages of every policy's critics on every env."""
    shaped = shape_rewards(rollout, gamma, timeout_bootstrap)
    return np.stack(
        [gae(shaped[k], rollout.values[k], rollout.last_values[k], rollout.done, gamma, tau) for k in (PI, REFERENCE)]
    )


def env_major(x: Array) -> Array:
    """(T, N, ...) -> (N T, ...), row n T + t: the first half of the rows is pi's."""
    return x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def whiten(advantages: Array) -> Array:
    """(2, T, N, 2): mean 0 and spread 1 over all T N rows, per policy and channel, *before* halves are exchanged.

    The spread is the sample one (n - 1), as torch.std has it. No guard: a constant channel becomes 0 / 1e-8.
    """
    mean = advantages.mean(axis=(1, 2), keepdims=True)
    std = advantages.std(axis=(1, 2), ddof=1, keepdims=True)
    return (advantages - mean) / (std + 1e-8)


def mix(whitened: Array, alpha: float, lam: float, variant: str) -> Array:
    """(2, 2, T, N): what [policy k's critics] offer [pi, pi_H] to train on; not standardised again.

    main:   pi A_r + lam / (1 + alpha) A_h                       pi_H A_h
    later:  pi b A_r + lam (1 - b) A_h with b = alpha / (1 + alpha)   pi_H A_h (its ref_scheme "human")
    """
    task, heuristic = whitened[..., TASK], whitened[..., HEURISTIC]
    if variant == "main":
        mixed = task + lam / (1.0 + alpha) * heuristic
    else:
        assert variant == "later"
        share = alpha / (1.0 + alpha)
        mixed = share * task + lam * (1.0 - share) * heuristic
    return np.stack((mixed, heuristic), axis=1)


def exchange(offered: Array) -> Array:
    """(2, N T): the advantages pi and pi_H train on, each row with those of the policy that drove it (its critics)."""
    half = offered.shape[-1] // 2
    own = np.concatenate((offered[PI][:, :, :half], offered[REFERENCE][:, :, half:]), axis=-1)
    return np.stack([env_major(own[k]) for k in (PI, REFERENCE)])


def dataset_advantages(
    rollout: Rollout, gamma: float, tau: float, timeout_bootstrap: str, alpha: float, lam: float, variant: str
) -> Array:
    """(2, N T) for pi and pi_H, env-major, from the rollout in one go."""
    return exchange(mix(whiten(all_advantages(rollout, gamma, tau, timeout_bootstrap)), alpha, lam, variant))


def value_targets(rollout: Rollout, gamma: float, tau: float, timeout_bootstrap: str) -> Array:
    """(2, N T, 2): A + V of each policy's own critics, on all rows. Nothing here is exchanged."""
    targets = all_advantages(rollout, gamma, tau, timeout_bootstrap) + rollout.values
    return np.stack([env_major(targets[k]) for k in (PI, REFERENCE)])


def minibatch_rows(rows: int, minibatches: int, variant: str) -> List[List[int]]:
    """Env-major row indices of each minibatch. Never shuffled.

    main: contiguous, so with an even count every minibatch is driven by one policy alone. later: rows of the two
    halves in turn (0, M/2, 1, M/2 + 1, ...), then contiguous slices.
    """
    order = list(range(rows))
    if variant == "later":
        order = [row for pair in zip(range(rows // 2), range(rows // 2, rows)) for row in pair]
    size = rows // minibatches
    return [order[i * size : (i + 1) * size] for i in range(minibatches)]


def record_main(whitened: Array) -> float:
    """One record of J(pi) - J(pi_H), taken *before* the update: rec_pi - rec_H.

    rec_pi = -mean over pi_H's envs of pi's task advantages, rec_H = -mean over pi's envs of pi_H's.
    """
    half = whitened.shape[2] // 2
    rec_pi = -whitened[PI, :, half:, TASK].mean()
    rec_h = -whitened[REFERENCE, :, :half, TASK].mean()
    return float(rec_pi - rec_h)


def record_later(shaped: Array, values: Array, last_values: Array, done: Flags, gamma: float, tau: float) -> float:
    """One record of J(pi) - J(pi_H), taken *after* the update: the mean of both critics on pi's envs.

    Args:
        shaped: (2, T, N, 2) rewards as stored at collection: time-out bootstraps are of the old critics.
        values: (2, T, N, 2), last_values: (2, N, 2) of the critics after the update, on the same observations.
    """
    task = slice(TASK, TASK + 1)
    advantages = np.stack(
        [
            gae(shaped[k][..., task], values[k][..., task], last_values[k][..., task], done, gamma, tau)
            for k in (PI, REFERENCE)
        ]
    )
    on_pi = whiten(advantages)[:, :, : done.shape[1] // 2, 0]
    return float(0.5 * (on_pi[PI].mean() + on_pi[REFERENCE].mean()))


@dataclass
class Alpha:
    """The multiplier and its Adam (betas .9, .999, eps 1e-8). Both variants start at 0."""

    variant: str = "main"
    value: float = 0.0
    records: List[float] = field(default_factory=list)
    m: float = 0.0
    v: float = 0.0
    steps: int = 0

    @property
    def learning_rate(self) -> float:
        """The README's: 1e-4 in main, 1e-3 in later."""
        return 1e-4 if self.variant == "main" else 1e-3


def alpha_gradient(alpha: Alpha) -> float:
    """Lower median (torch.median) of the last 8 records, fewer at the start, clipped: +-1 in main, +-.02 in later."""
    clip = 1.0 if alpha.variant == "main" else 0.02
    return min(clip, max(-clip, median_low(alpha.records[-WINDOW:])))


def alpha_step(alpha: Alpha, record: float) -> float:
    """Append the record, one Adam descent step, clamp to [-.99, inf) or [0, inf). First used in the next iteration."""
    alpha.records.append(record)
    gradient = alpha_gradient(alpha)
    alpha.steps += 1
    alpha.m = 0.9 * alpha.m + 0.1 * gradient
    alpha.v = 0.999 * alpha.v + 0.001 * gradient * gradient
    m_hat = alpha.m / (1.0 - 0.9**alpha.steps)
    v_hat = alpha.v / (1.0 - 0.999**alpha.steps)
    alpha.value -= alpha.learning_rate * m_hat / (v_hat**0.5 + 1e-8)
    alpha.value = max(alpha.value, -0.99 if alpha.variant == "main" else 0.0)
    return alpha.value
