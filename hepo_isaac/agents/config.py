"""The training settings of an agent, with rl-games' key names where rl-games has one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

ACTIVATIONS = ("elu", "relu", "selu", "tanh")
KL_SCHEDULES = ("minibatch", "mini_epoch", "iteration", "fixed")


@dataclass(frozen=True)
class TrainConfig:
    """PPO settings shared by every method; cfg/train and a task's file say what departs from these.

    max_iterations: a run's length; one iteration is a rollout and an update.
    schedule_iterations: over how many iterations schedules run (annealing's weight of h); null: max_iterations. A run
        that is made longer when it is resumed keeps the schedule that it began with.
    horizon_length: control steps per iteration and environment.
    minibatch_size: rows per gradient step, all policies together: a method with two policies of N/2 envs takes as many
        steps per epoch as PPO on N envs. Where nobody typed it, it follows num_envs.
    mini_epochs: passes over the rows of one iteration.
    units: hidden layers of the trunk that actor and critics share.
    activation: after every hidden layer: elu, relu, selu or tanh.
    critic_units: trunk of critics that see more than the actors (a task's asymmetric observations); empty: as units.
    gamma: discount.
    tau: GAE's lambda.
    e_clip: clip of PPO's ratio and of the value.
    clip_value: whether the value loss is clipped around the old value.
    critic_coef: the value loss enters with half of this.
    entropy_coef: weight of the entropy bonus.
    bounds_loss_coef: weight of the penalty on Gaussian means beyond plus and minus 1.1.
    grad_norm: bound on the norm of a policy's gradient.
    learning_rate: Adam's step at the start; lr_schedule adapts it.
    lr_schedule: how often the learning rate follows the KL: after each "minibatch" (rl-games' legacy), each
        "mini_epoch" (its standard), each "iteration", or "fixed".
    kl_threshold: KL divergence that the adaptive learning rate aims at.
    min_lr, max_lr: bounds of the adaptive learning rate.
    normalize_input: standardise observations by their running statistics.
    value_target_clip: bound on what critics are fitted to, in spreads of all returns so far, above 0; .inf: none. At
        rl-games' 5 a reward that comes late and seldom is first learned at a small part of its size.
    value_bootstrap: whether the published training file of the task adds a value at time limits; read by methods with
        algo.timeout_bootstrap=rl_games alone, the authors' releases.
    max_bad_fraction: the run stops if more than this share of worlds diverges in one iteration.
    graph_update: on CUDA, capture the update as a graph.
    fused: on a CPU, take gradient steps in one compiled function; auto: where a C++ compiler is there.
    """

    max_iterations: int = 1000
    schedule_iterations: Optional[int] = None
    horizon_length: int = 16
    minibatch_size: int = 8192
    mini_epochs: int = 5
    units: Tuple[int, ...] = (256, 128, 64)
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
    value_target_clip: float = 5.0
    value_bootstrap: bool = True
    max_bad_fraction: float = 0.01
    graph_update: bool = True
    fused: Union[bool, str] = "auto"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                "unknown train.network.activation %r; valid: %s" % (self.activation, ", ".join(ACTIVATIONS))
            )
        if self.lr_schedule not in KL_SCHEDULES:
            raise ValueError("unknown train.lr_schedule %r; valid: %s" % (self.lr_schedule, ", ".join(KL_SCHEDULES)))
        if self.fused not in (True, False, "auto"):
            raise ValueError("train.fused must be auto, true or false, got %r" % (self.fused,))
        if not self.value_target_clip > 0.0:
            raise ValueError("train.value_target_clip must be above 0 (.inf for none), got %r" % self.value_target_clip)
        for name in ("units", "critic_units"):
            sizes = getattr(self, name)
            if not isinstance(sizes, tuple) or not all(isinstance(n, int) and n > 0 for n in sizes):
                text = "train.network.%s must be a list of positive whole numbers, got %r"
                raise ValueError(text % (name, list(sizes) if isinstance(sizes, tuple) else sizes))
        for name in ("max_iterations", "horizon_length", "minibatch_size", "mini_epochs"):
            if getattr(self, name) < 1:
                raise ValueError("train.%s must be >= 1, got %r" % (name, getattr(self, name)))

    def minibatches(self, num_envs: int, policies: int = 1) -> int:
        """Gradient steps per mini-epoch.

        Raises:
            ValueError: minibatch_size does not divide the batch into equal shares for ``policies``.
        """
        batch, size = num_envs * self.horizon_length, self.minibatch_size
        if batch % size or size % policies:
            raise ValueError(
                "train.minibatch_size=%d does not divide the batch num_envs * train.horizon_length = %d * %d = %d%s; "
                "nearest that do: %s"
                % (
                    size,
                    num_envs,
                    self.horizon_length,
                    batch,
                    " into equal shares for %d policies" % policies if policies > 1 else "",
                    ", ".join(map(str, nearest_divisors(batch, size, policies))),
                )
            )
        return batch // size


def nearest_divisors(batch: int, wanted: int, policies: int, count: int = 2) -> List[int]:
    """Up to ``count`` minibatch sizes that split ``batch`` evenly, with equal shares per policy, nearest first."""
    fitting = [d for d in range(policies, batch + 1, policies) if batch % d == 0]
    return sorted(fitting, key=lambda d: (abs(d - wanted), -d))[:count] or [batch]


# Fields that stand under train.network, as in rl-games.
NETWORK = ("units", "activation", "critic_units")


def train_config(cfg: Mapping[str, Any]) -> TrainConfig:
    """Build a TrainConfig from a ``train`` mapping; what it leaves out is at its default.

    Raises:
        ValueError: an unknown key, or a value that cannot be.
    """
    cfg = dict(cfg)
    network = dict(cfg.pop("network", None) or {})
    cfg.pop("num_envs", None)
    _check_keys("train", cfg, [f.name for f in fields(TrainConfig) if f.name not in NETWORK] + ["network"])
    _check_keys("train.network", network, NETWORK)
    for key in ("units", "critic_units"):
        if key in network:
            network[key] = tuple(network[key])
    return TrainConfig(**cfg, **network)


def _check_keys(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    extra = sorted(set(given) - set(known))
    if extra:
        raise ValueError("unknown key %s.%s; valid: %s" % (where, extra[0], ", ".join(sorted(known))))
