"""The training settings of an agent, with rl-games' key names where rl-games has one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Mapping, Tuple

ACTIVATIONS = ("elu", "relu", "selu", "tanh")
KL_SCHEDULES = ("minibatch", "mini_epoch", "iteration", "fixed")


@dataclass(frozen=True)
class TrainConfig:
    """PPO settings shared by every method.

    horizon_length: control steps per iteration and env.  minibatch_size: rows per gradient step, all policies
    together: a method with two policies of N/2 envs takes as many steps per epoch as PPO on N envs.
    tau: GAE's lambda.  e_clip: PPO and value clip.  critic_coef: the value loss enters with 0.5 critic_coef.
    learning_rate, kl_threshold, min_lr, max_lr: adaptive rule; lr_schedule says how often it looks at the KL:
        after each "minibatch" (rl-games' legacy), each "mini_epoch" (its standard), each "iteration", or "fixed".
    critic_units: trunk of critics that see more than the actors (a task's asymmetric observations); as units if empty.
    bounds_loss_coef: weight of the penalty on Gaussian means beyond +-1.1.
    max_bad_fraction: the run stops if more than this share of worlds diverges in one iteration.
    """

    max_iterations: int
    horizon_length: int
    minibatch_size: int
    mini_epochs: int
    units: Tuple[int, ...]
    activation: str = "elu"
    critic_units: Tuple[int, ...] = ()
    gamma: float = 0.99
    tau: float = 0.95
    e_clip: float = 0.2
    clip_value: bool = True
    critic_coef: float = 4.0
    entropy_coef: float = 0.0
    bounds_loss_coef: float = 1e-4
    grad_norm: float = 1.0
    learning_rate: float = 5e-4
    lr_schedule: str = "mini_epoch"
    kl_threshold: float = 0.008
    min_lr: float = 1e-6
    max_lr: float = 1e-2
    normalize_input: bool = True
    max_bad_fraction: float = 0.01
    graph_update: bool = True

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                "unknown train.network.activation %r; valid: %s" % (self.activation, ", ".join(ACTIVATIONS))
            )
        if self.lr_schedule not in KL_SCHEDULES:
            raise ValueError("unknown train.lr_schedule %r; valid: %s" % (self.lr_schedule, ", ".join(KL_SCHEDULES)))
        for name in ("max_iterations", "horizon_length", "minibatch_size", "mini_epochs"):
            if getattr(self, name) < 1:
                raise ValueError("train.%s must be >= 1, got %r" % (name, getattr(self, name)))

    def minibatches(self, num_envs: int) -> int:
        """Gradient steps per mini-epoch; ValueError if minibatch_size does not divide the batch."""
        batch = num_envs * self.horizon_length
        if batch % self.minibatch_size:
            raise ValueError(
                "train.minibatch_size=%d does not divide num_envs * horizon_length = %d * %d = %d"
                % (self.minibatch_size, num_envs, self.horizon_length, batch)
            )
        return batch // self.minibatch_size


def train_config(cfg: Mapping[str, Any]) -> TrainConfig:
    """Build a TrainConfig from the task's ``train`` mapping; ValueError names an unknown key."""
    cfg = dict(cfg)
    network = dict(cfg.pop("network", {}))
    cfg.update(units=tuple(network["units"]), activation=network.get("activation", "elu"))
    cfg.update(critic_units=tuple(network.get("critic_units", ())))
    known = {f.name for f in fields(TrainConfig)}
    extra = sorted(set(cfg) - known - {"num_envs"})
    if extra:
        raise ValueError("unknown key train.%s; valid: %s" % (extra[0], ", ".join(sorted(known))))
    cfg.pop("num_envs", None)
    return TrainConfig(**cfg)
