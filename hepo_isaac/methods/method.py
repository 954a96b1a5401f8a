"""A method as data: which policies there are, what each maximises, and how they share experience."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Mapping, Tuple

from hepo_isaac.methods.multiplier import MultiplierConfig

# What a policy's advantage is made of, as weights of the standardised [r, h] channel advantages.
OBJECTIVES = ("task", "heuristic", "sum", "constrained")
CONTRASTS = ("raw_gae", "standardized", "episode_return")


@dataclass(frozen=True)
class MethodConfig:
    """One algorithm of cfg/algo/.

    objectives: one entry per policy, the first is the one that is deployed. "task" maximises r, "heuristic" h,
        "sum" r + lambda h, "constrained" (1+alpha) r + lambda h.
    sum_reward: value channel 1 is r + lambda h (one critic on the sum) instead of h; only with objective "sum".
    heuristic_weight: lambda.
    constraint: alpha is learned; needs exactly the objectives ("constrained", "heuristic").
    contrast: estimator of J(pi) - J(pi_H) for alpha.
    share_data: each policy also trains on the other's rows, with ratios against the policy that acted.
    off_policy_fraction: share of the other's rows used per epoch, in (0, 1].
    dual_clip: bound on those rows' loss for negative advantages, > 1.
    standardize_per_owner: advantages are standardised over the rows of the policy that acted (True) or over all.
    """

    name: str
    objectives: Tuple[str, ...] = ("heuristic",)
    sum_reward: bool = False
    heuristic_weight: float = 1.0
    constraint: bool = False
    contrast: str = "raw_gae"
    share_data: bool = False
    off_policy_fraction: float = 0.5
    dual_clip: float = 3.0
    standardize_per_owner: bool = True
    unit_norm: bool = False
    multiplier: MultiplierConfig = field(default_factory=MultiplierConfig)

    def __post_init__(self) -> None:
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise ValueError("unknown objective %r of %s; valid: %s" % (objective, self.name, OBJECTIVES))
        if self.contrast not in CONTRASTS:
            raise ValueError("unknown contrast %r of %s; valid: %s" % (self.contrast, self.name, CONTRASTS))
        if len(self.objectives) not in (1, 2):
            raise ValueError("%s has %d policies; 1 or 2 are supported" % (self.name, len(self.objectives)))
        if self.constraint and self.objectives != ("constrained", "heuristic"):
            raise ValueError("%s: a constraint needs objectives (constrained, heuristic)" % self.name)
        if self.share_data and len(self.objectives) != 2:
            raise ValueError("%s: share_data needs two policies" % self.name)
        if self.sum_reward and set(self.objectives) != {"sum"}:
            raise ValueError("%s: sum_reward goes with the objective 'sum' alone" % self.name)
        if not 0.0 < self.off_policy_fraction <= 1.0:
            raise ValueError(
                "%s: off_policy_fraction must be in (0, 1], got %r" % (self.name, self.off_policy_fraction)
            )
        if self.dual_clip <= 1.0:
            raise ValueError("%s: dual_clip must be > 1, got %r" % (self.name, self.dual_clip))

    @property
    def num_policies(self) -> int:
        """Policies per run."""
        return len(self.objectives)

    @property
    def policy_names(self) -> Tuple[str, ...]:
        """Names used in metrics and checkpoints: pi, and pi_h for the reference."""
        return ("pi", "pi_h")[: self.num_policies]

    def critic_channels(self) -> Tuple[Tuple[bool, bool], ...]:
        """Per policy, which of the value channels [r, h or sum] its critic is trained on.

        A policy that never looks at r has no reason to fit it, except that the constraint compares both on r.
        """
        used = {"task": (True, False), "heuristic": (False, True), "sum": (True, True), "constrained": (True, True)}
        if self.constraint:
            return ((True, True), (True, True))
        if self.sum_reward:
            return ((False, True),)
        return tuple(used[o] for o in self.objectives)


def method_from_config(cfg: Mapping[str, Any]) -> MethodConfig:
    """Build a MethodConfig from a mapping (cfg/algo/*.yaml); ValueError names an unknown key."""
    cfg = dict(cfg)
    multiplier = dict(cfg.pop("multiplier", None) or {})
    _check_keys("algo", cfg, MethodConfig)
    _check_keys("algo.multiplier", multiplier, MultiplierConfig)
    if "objectives" in cfg:
        cfg["objectives"] = tuple(cfg["objectives"])
    return MethodConfig(multiplier=MultiplierConfig(**multiplier), **cfg)


def _check_keys(where: str, given: Mapping[str, Any], cls: Any) -> None:
    known = {f.name for f in fields(cls)}
    extra = sorted(set(given) - known)
    if extra:
        raise ValueError("unknown key %s.%s; valid: %s" % (where, extra[0], ", ".join(sorted(known))))
