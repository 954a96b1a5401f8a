"""What a number of a setting can be, and which names can become folders: one table, judged before anything is built.

A key without a line of its own has to be finite and no larger than anything that a run could mean.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from hepo_isaac.errors import UserError

LARGEST_SEED = 2**32  # numpy takes no larger one
MAX_ENVS = 1 << 22  # of one run: a robot's state, buffers and rows of so many fill any machine there is
MAX_BATCH = 1 << 28  # rows of an iteration
MAX_THREADS = 1024
MOST = 10**9


@dataclass(frozen=True)
class Limit:
    """Numbers from ``low`` to ``high``. above: ``low`` itself is none of them.  infinite: infinity is one.  words: how
    it is said, if not by the numbers."""

    low: float
    high: float
    above: bool = False
    infinite: bool = False
    words: str = ""

    def allows(self, value: Any) -> bool:
        """Whether ``value``, a number, is one of them; NaN never is."""
        if self.infinite and value == math.inf:
            return True
        return bool((value > self.low if self.above else value >= self.low) and value <= self.high)

    def __str__(self) -> str:
        if self.words:
            return self.words
        if (self.low, self.high, self.above) == (0, 1, False):
            return "between 0 and 1"
        if self.low == -self.high:
            return "a finite number of at most %s" % _said(self.high)
        least = "above %s" % _said(self.low) if self.above else "at least %s" % _said(self.low)
        least = "positive" if self.above and self.low == 0 else least
        return "%s and at most %s%s" % (least, _said(self.high), ", or .inf" if self.infinite else "")


def _said(value: float) -> str:
    return "%d" % value if value == int(value) and abs(value) < 1e16 else "%g" % value


COUNT, SOME = Limit(1, MOST), Limit(0, MOST)
SHARE = Limit(0, 1)
POSITIVE, NOT_NEGATIVE = Limit(0, 1e9, above=True), Limit(0, 1e9)
ANY_NUMBER, ANY_COUNT = Limit(-1e12, 1e12), Limit(-(2**31), 2**31)

_SEEDS = "from 0 to %d" % (LARGEST_SEED - 1)
LIMITS: Dict[str, Limit] = {
    "num_envs": Limit(1, MAX_ENVS),
    "seed": Limit(0, LARGEST_SEED - 1, words=_SEEDS),
    "seeds": Limit(0, LARGEST_SEED - 1, words="a number of runs or a list of whole numbers " + _SEEDS),
    "torch_threads": Limit(1, MAX_THREADS),
    "update_threads": Limit(1, MAX_THREADS),
    "sim.threads": Limit(0, MAX_THREADS),
    "checkpoint_every": COUNT,
    "keep_checkpoints": SOME,
    "evaluation_episodes": SOME,
    "eval.episodes": COUNT,
    "task.episode_length": COUNT,
    "train.max_iterations": COUNT,
    "train.schedule_iterations": COUNT,
    "train.horizon_length": Limit(1, 1 << 20),
    "train.minibatch_size": Limit(1, MAX_BATCH),
    "train.mini_epochs": Limit(1, 10**6),
    "train.network.units": Limit(1, 1 << 16),
    "train.network.critic_units": Limit(1, 1 << 16),
    "train.gamma": SHARE,
    "train.tau": SHARE,
    "train.max_bad_fraction": SHARE,
    "train.learning_rate": Limit(0, 1e3, above=True),
    "train.min_lr": Limit(0, 1e3, above=True),
    "train.max_lr": Limit(0, 1e3, above=True),
    "train.kl_threshold": Limit(0, 1e6, above=True),
    "train.e_clip": Limit(0, 1e6, above=True),
    "train.grad_norm": Limit(0, 1e9, above=True, infinite=True),
    "train.value_target_clip": Limit(0, 1e9, above=True, infinite=True),
    "train.critic_coef": NOT_NEGATIVE,
    "train.entropy_coef": NOT_NEGATIVE,
    "train.bounds_loss_coef": NOT_NEGATIVE,
    "algo.shares": Limit(1, 1 << 16),
    "algo.heuristic_weight": Limit(-1e9, 1e9),
    "algo.off_policy_fraction": Limit(0, 1, above=True),
    "algo.dual_clip": Limit(1, 1e9, above=True, infinite=True),
    "algo.reference_noise": NOT_NEGATIVE,
    "algo.partner_pull": NOT_NEGATIVE,
    "algo.max_stage_iterations": COUNT,
    "algo.multiplier.lr": NOT_NEGATIVE,
    "algo.multiplier.maximum": Limit(0, 1e12, infinite=True),
    "algo.multiplier.gradient_clip": Limit(0, 1e12, above=True, infinite=True),
    "algo.multiplier.median_window": Limit(1, 10**6),
    "algo.references.window_episodes": COUNT,
    "algo.references.reseed_windows": SOME,
    "algo.references.maximum": Limit(0, 1e12, infinite=True),
    "algo.shaping.annealing_fraction": SHARE,
    "algo.shaping.horizon_initial": SHARE,
}
# Of what stands under task.physics, by the last part of its key.
PHYSICS: Dict[str, Limit] = {
    "control_dt": Limit(1e-5, 10),
    "sim_dt": Limit(1e-5, 10),
    "substeps": Limit(1, 1000),
    "simulates": Limit(1, 1000),
    "solref_steps": Limit(0, 1000, above=True),
    "velocity_limit": Limit(0, 1e9, above=True, infinite=True),
    "effort_limit": Limit(0, 1e12, above=True, infinite=True),
    "impratio": POSITIVE,
    "iterations": Limit(1, 10_000),
    "ls_iterations": Limit(1, 10_000),
    "num_position_iterations": Limit(1, 255),
    "num_velocity_iterations": Limit(0, 255),
    "restitution": SHARE,
    "num_props": Limit(0, 1000),
    "nconmax": Limit(0, 10**6),
    "njmax": Limit(0, 10**6),
}
_NOT_NEGATIVE = re.compile(r"(^|_)(friction|damping|stiffness|armature|density|thickness|tolerance|spacing|max.*)$")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")
FOLDER = "letters, digits and any of _ . + = - (at most 100, no dot or dash first)"
AT_WANDB = re.compile(r"(?![. ]*$)[^/\\#?%:\x00-\x1f]{1,120}")
# Settings that become part of a path, here or at W&B: what they must be, and whether they may be null.
NAMES: Dict[str, Tuple[Any, str, bool]] = {
    "algo.name": (NAME, "the name of a folder: " + FOLDER, True),
    "wandb.project": (AT_WANDB, "a name without / \\ # ? % and :", False),
    "wandb.entity": (AT_WANDB, "a name without / \\ # ? % and :", True),
    "wandb.group": (AT_WANDB, "a name without / \\ # ? % and :", True),
}


def limit(key: str, value: Any) -> Optional[Limit]:
    """What a number ``value`` of the setting ``key`` has to be; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if key in LIMITS:
        return LIMITS[key]
    last = key.rsplit(".", 1)[-1]
    if key.startswith("task.physics."):
        if last in PHYSICS:
            return PHYSICS[last]
        if _NOT_NEGATIVE.search(last):
            return Limit(0, 1e12)
    if last == "num_envs":  # of a budget
        return LIMITS["num_envs"]
    return ANY_COUNT if isinstance(value, int) else ANY_NUMBER


def check_number(key: str, value: Any) -> None:
    """Refuse a number, or one in a list, that the setting ``key`` cannot be; all else passes.

    Raises:
        UserError: which key, what it may be and what it was.
    """
    if isinstance(value, (list, tuple)):
        for item in value:
            check_number(key, item)
        return
    bounds = limit(key, value)
    if bounds is not None and not bounds.allows(value):
        raise UserError("%s must be %s, got %s" % (key, bounds, _shortened(value)))


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else "%s… (%d digits)" % (text[:12], len(text))


def check_numbers(config: Mapping[str, Any]) -> None:
    """``check_number`` for every number of a resolved configuration."""
    for key, value in _leaves(config, ""):
        check_number(key, value)


def _leaves(config: Mapping[str, Any], path: str) -> Iterator[Tuple[str, Any]]:
    for key, value in config.items():
        dotted = "%s.%s" % (path, key) if path else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, dotted)
        else:
            yield dotted, value


def check_name(key: str, value: Any) -> None:
    """Refuse a name of NAMES that is not fit for a folder.

    Raises:
        UserError: it would leave its folder, hide, or mean something to a shell.
    """
    pattern, what, may_be_null = NAMES[key]
    if value is None and may_be_null:
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        shown = value if value is None or len(str(value)) < 60 else str(value)[:60] + "…"
        raise UserError("%s must be %s, got %r" % (key, what, shown))


def check_names(config: Mapping[str, Any]) -> None:
    """``check_name`` for those of a resolved configuration."""
    for key in NAMES:
        group, name = key.split(".")
        if isinstance(config.get(group), Mapping) and name in config[group]:
            check_name(key, config[group][name])
