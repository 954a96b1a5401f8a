"""A method as data: which policies there are, what each maximises, and how they share experience."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional, Tuple

from hepo_isaac.methods.multiplier import MultiplierConfig
from hepo_isaac.methods.references import ReferencesConfig
from hepo_isaac.methods.schedules import ANNEALING_SCHEDULES, HORIZON_SCHEDULES

# Every setting that is a choice, and what there is to choose from.
CHOICES: Dict[str, Tuple[str, ...]] = {
    "constraint": ("none", "reference", "references", "threshold", "eipo"),
    "mixing": ("ratio", "convex"),
    "contrast": (
        "raw_gae",
        "standardized",
        "release",
        "release2",
        "episode_return",
        "episode_window",
        "start_value",
        "doubly_robust",
    ),
    "collection": ("halves", "members", "alternating"),
    "switching": ("alternate", "difference", "win_lose"),
    "foreign_advantage": ("owner", "vtrace"),
    "ratio_anchor": ("behaviour", "old_policy"),
    "share_data": ("none", "both", "pi", "reference", "heuristic", "guided"),
    "whitening": ("owner", "joint", "critic", "none"),
    "critic_data": ("own", "both"),
    "minibatch_order": ("stratified", "contiguous", "interleaved"),
    "timeout_bootstrap": ("final_obs", "rl_games", "none"),
}
WINDOWED = ("episode_return", "episode_window")  # contrasts that ask no critic
OBJECTIVES = ("task", "heuristic", "sum", "constrained", "lagrangian")
SHAPING_CHOICES: Dict[str, Tuple[str, ...]] = {
    "kind": ("none", "sum", "potential", "horizon"),
    "potential": ("immediate", "state", "learned"),
    "schedule": HORIZON_SCHEDULES,
    "annealing": ("none", *ANNEALING_SCHEDULES),
}


@dataclass(frozen=True)
class ShapingConfig:
    """How h enters the reward of value channel 1, for methods with one critic on a shaped reward.

    kind: "none" channel 1 is h; "sum" r + lambda h; "potential" r + F (Ng et al. 1999); "horizon" HuRL (Cheng et al.
        2021), which also shortens the discount.
    potential: what Phi is: "immediate" c h_t with one step of look-ahead, "state" the task's Phi(s), "learned" by TD
        on -h (Harutyunyan et al. 2015).
    potential_scale: c of the immediate potential.
    horizon_initial: HuRL's lambda at the start.
    horizon_rate: HuRL's lambda reaches 1 after this share of training.
    schedule: curve of HuRL's lambda: constant, linear, tanh or exponential_average.
    annealing: curve by which lambda falls from 1 to 0: none, constant (a cut at the end), linear, cosine or
        exponential; also without a shaped reward, where lambda weighs an advantage.
    annealing_fraction: part of training over which it falls.
    """

    kind: str = "none"
    potential: str = "immediate"
    potential_scale: float = 1.0
    horizon_initial: float = 0.95
    horizon_rate: float = 1.0
    schedule: str = "tanh"
    annealing: str = "none"
    annealing_fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_choices("algo.shaping", self, SHAPING_CHOICES)
        if not 0.0 < self.annealing_fraction <= 1.0:
            raise ValueError("algo.shaping.annealing_fraction must be in (0, 1], got %r" % self.annealing_fraction)
        if not 0.0 <= self.horizon_initial <= 1.0 or not self.horizon_rate > 0.0:
            raise ValueError(
                "algo.shaping.horizon_initial must be in [0, 1] and horizon_rate positive, got %r and %r"
                % (self.horizon_initial, self.horizon_rate)
            )


@dataclass(frozen=True)
class MethodConfig:
    """One algorithm of cfg/algo/. The defaults are those of the shipped ``hepo``; a yaml says what departs from them.

    A key about a second policy, or about a multiplier, means nothing to a method without one; ``in_effect`` says
    which, and what such a key then stands at.

    name: label of the method: it names the run folder and is what hepo-isaac compare groups by.
    objectives: one entry per policy, the first is the one that is deployed: "task" maximises r, "heuristic" h, "sum"
        r + lambda h (or the shaped reward), "constrained" (1+alpha) r + lambda h, "lagrangian" (h + nu r) / (1 + nu).
    shares: blocks of envs that each policy acts in, one entry per objective; empty: one each. [2, 1, 1] gives the first
        half of the envs.
    common_start: all policies of a run start from the same weights, so that their rows are on-policy for each other
        until their objectives part.
    constraint: what the multiplier enforces: "reference" J(pi) >= J of the second policy, "references" J(pi) >= J of
        every other (see ReferencesConfig), "threshold" J(pi) >= threshold, "eipo" J(pi) = J(pi_J) in EIPO's stages, or
        "none".
    heuristic_weight: lambda, the weight of h.
    threshold: J that constraint=threshold asks for; null: half way between the task's random and optimal scores.
    mixing: "ratio" r + lambda/(1+alpha) h, or "convex" b r + lambda (1-b) h with b = alpha/(1+alpha).
    contrast: estimator of J(pi) - J(reference): episode_return, episode_window (in standard errors, once in a window of
        references.window_episodes whole episodes), raw_gae, standardized, start_value, doubly_robust, release or
        release2 (hepo_isaac/methods/contrast.py).
    contrast_after_update: the contrast is measured with the critics after the policy update instead of before.
    collection: "halves" each policy acts in its own envs; "members" too, for any number of them; "alternating" all envs
        by one policy per iteration, which changes by switching.
    switching: when EIPO leaves a stage: its utility stops rising ("difference"), falls below 0 ("win_lose"), or every
        iteration ("alternate").
    max_stage_iterations: a stage of EIPO ends after so many iterations at the latest.
    share_data: who also trains on the others' rows, with ratios against ratio_anchor: both (everyone), none, pi,
        reference (the others), heuristic: those whose objective has h in it, among themselves, or guided: these, and
        pi from everyone. Rows of who maximises r alone are always anchored at the learner's old policy.
    foreign_advantage: what a row of the other policy is worth: "vtrace" by the learner's own critics, off-policy
        corrected; "owner" its advantage by the critics of who acted, i.e. improve on the other where it was (as
        released).
    ratio_anchor: what the clipped ratio of another's row is taken against: "behaviour" who acted, which pulls a policy
        towards the other whatever the advantage says; "old_policy" the learner before the update, the row weighted by
        min(1, that policy over who acted): no pull.
    partner_pull: advantage, in standard deviations, added for pi to the rows of a policy that is ahead of it on J, as
        far as there is evidence for that: imitate who does better. With collection=members.
    off_policy_fraction: share of the other's rows used per epoch, in (0, 1].
    dual_clip: bound on those rows' loss for negative advantages, above 1; .inf: none.
    whitening: advantages are standardised over the rows of the policy that acted ("owner"), of both ("joint"), over
        everything each critic sees before rows are exchanged ("critic", as released), or not at all ("none").
    critic_data: critics are trained on rows of their "own" policy, or on "both" (as released).
    minibatch_order: "stratified" shuffled with a fixed share of each policy's rows; "contiguous" env-major and never
        shuffled (as released); "interleaved" rows of both in turn (second release).
    timeout_bootstrap: value at a time limit: of the final observation ("final_obs"), of the one before ("rl_games",
        where train.value_bootstrap is true), or "none".
    frozen_reference: run folder or checkpoint whose deployed policy is the second policy, and never learns.
    reference_noise: spread of Gaussian noise added to the second policy's weights (not its value heads) after every
        update; an experiment on how far the reference may stray.
    shaping: how h is made into a reward, see ShapingConfig.
    multiplier: how alpha follows the constraint, see MultiplierConfig.
    references: when one policy counts as ahead of another, see ReferencesConfig.
    """

    name: str
    objectives: Tuple[str, ...] = ("heuristic",)
    shares: Tuple[int, ...] = ()
    common_start: bool = False
    constraint: str = "none"
    heuristic_weight: float = 1.0
    threshold: Optional[float] = None
    mixing: str = "ratio"
    contrast: str = "episode_return"
    contrast_after_update: bool = False
    collection: str = "halves"
    switching: str = "alternate"
    max_stage_iterations: int = 16
    share_data: str = "both"
    foreign_advantage: str = "vtrace"
    ratio_anchor: str = "behaviour"
    partner_pull: float = 0.0
    off_policy_fraction: float = 0.5
    dual_clip: float = 3.0
    whitening: str = "owner"
    critic_data: str = "own"
    minibatch_order: str = "stratified"
    timeout_bootstrap: str = "final_obs"
    frozen_reference: Optional[str] = None
    reference_noise: float = 0.0
    shaping: ShapingConfig = field(default_factory=ShapingConfig)
    multiplier: MultiplierConfig = field(default_factory=MultiplierConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)

    def __post_init__(self) -> None:
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise ValueError("unknown objective %r of %s; valid: %s" % (objective, self.name, OBJECTIVES))
        _check_choices("algo", self, CHOICES)
        for key, value in in_effect(vars(self)).items():
            object.__setattr__(self, key, value)
        for wrong, message in self._contradictions():
            if wrong:
                raise ValueError("algo %s: %s" % (self.name, message))

    def _contradictions(self) -> Tuple[Tuple[bool, str], ...]:
        """What does not go together, and the sentence that says so."""
        two, shaped = len(self.objectives) == 2, self.shaping.kind != "none"
        several, members = len(self.objectives) > 1, self.collection == "members"
        alternating = self.collection == "alternating"
        return (
            (not self.objectives, "objectives is empty; expected one entry per policy"),
            (len(self.objectives) > 2 and not members, "more than two policies need collection=members"),
            (
                bool(self.shares) and len(self.shares) != len(self.objectives),
                "shares has %d entries for %d objectives; expected one each" % (len(self.shares), len(self.objectives)),
            ),
            (any(s < 1 for s in self.shares), "shares must be whole numbers of blocks >= 1, got %s" % (self.shares,)),
            (len(set(self.shares)) > 1 and not members, "unequal shares need collection=members"),
            (
                self.constraint == "references" and not (several and members and self.objectives[0] == "constrained"),
                "constraint=references needs collection=members and two objectives or more, the first constrained",
            ),
            (
                members and (self.whitening not in ("owner", "none") or self.minibatch_order != "stratified"),
                "collection=members needs whitening=owner or none and minibatch_order=stratified",
            ),
            (
                members and (self.critic_data != "own" or self.frozen_reference is not None or shaped),
                "collection=members needs critic_data=own, and neither frozen_reference nor shaping",
            ),
            (
                members and self.share_data != "none" and self.foreign_advantage != "vtrace",
                "collection=members needs foreign_advantage=vtrace or share_data=none",
            ),
            (
                members and self.constraint == "reference" and self.contrast not in WINDOWED,
                "collection=members needs contrast=episode_return or episode_window",
            ),
            (
                self.contrast == "episode_window" and not (members and self.constraint == "reference"),
                "contrast=episode_window needs collection=members and constraint=reference",
            ),
            (
                self.share_data in ("heuristic", "guided") and not members,
                "share_data=%s needs collection=members" % self.share_data,
            ),
            (self.ratio_anchor != "behaviour" and not members, "ratio_anchor=old_policy needs collection=members"),
            (
                not self.partner_pull >= 0.0
                or (self.partner_pull > 0.0 and not (members and self.share_data != "none")),
                "partner_pull must be >= 0 and needs collection=members and share_data, got %r" % self.partner_pull,
            ),
            (
                self.constraint == "reference" and not (two and self.objectives[0] == "constrained"),
                "constraint=reference needs two objectives, constrained and what the reference maximises",
            ),
            (
                self.constraint == "threshold" and self.objectives != ("lagrangian",),
                "constraint=threshold needs the one objective lagrangian",
            ),
            (
                self.constraint == "eipo" and not (two and alternating and self.share_data == "both"),
                "constraint=eipo needs two policies, collection=alternating and share_data=both",
            ),
            ("lagrangian" in self.objectives and self.constraint != "threshold", "lagrangian needs a threshold"),
            (self.share_data != "none" and not several, "share_data needs two policies"),
            (alternating and not two, "collection=alternating needs two policies"),
            (
                alternating and self.share_data != "both",
                "collection=alternating needs share_data=both: a policy that neither acts nor shares would drift",
            ),
            (
                alternating and (self.critic_data, self.minibatch_order) != ("own", "stratified"),
                "collection=alternating needs critic_data=own and minibatch_order=stratified",
            ),
            (
                alternating and self.whitening not in ("owner", "none"),
                "collection=alternating needs whitening=owner or none",
            ),
            (
                alternating and self.constraint == "reference" and self.contrast not in ("raw_gae", "episode_return"),
                "collection=alternating needs contrast=raw_gae or episode_return",
            ),
            (
                self.switching != "alternate" and self.constraint != "eipo",
                "switching=%s needs the utilities of constraint=eipo" % self.switching,
            ),
            (
                self.contrast_after_update
                and (self.constraint != "reference" or alternating or self.contrast == "episode_return"),
                "contrast_after_update needs constraint=reference, collection=halves and a contrast of critics",
            ),
            (self.whitening in ("joint", "critic") and not two, "whitening=%s needs two policies" % self.whitening),
            (
                self.critic_data == "both" and not (two and self.share_data != "none"),
                "critic_data=both needs two policies and share_data",
            ),
            (self.frozen_reference is not None and not two, "frozen_reference needs two policies"),
            (
                self.frozen_reference is not None and self.collection != "halves",
                "frozen_reference needs collection=halves",
            ),
            (
                not self.reference_noise >= 0.0 or (self.reference_noise > 0.0 and not (two and not members)),
                "reference_noise must be >= 0 and needs two policies, got %r" % self.reference_noise,
            ),
            (
                self.minibatch_order != "stratified" and self.share_data != "both",
                "minibatch_order=%s needs share_data=both" % self.minibatch_order,
            ),
            (
                self.foreign_advantage == "vtrace"
                and (not several or alternating or self.whitening not in ("owner", "none")),
                "foreign_advantage=vtrace needs two policies, collection=halves and whitening=owner or none",
            ),
            (shaped and self.objectives != ("sum",), "shaping goes with the objective sum alone"),
            (
                not 0.0 < self.off_policy_fraction <= 1.0,
                "off_policy_fraction must be in (0, 1], got %r" % self.off_policy_fraction,
            ),
            (not self.dual_clip > 1.0, "dual_clip must be > 1, got %r" % self.dual_clip),
            (self.max_stage_iterations < 1, "max_stage_iterations must be >= 1, got %r" % self.max_stage_iterations),
        )

    @property
    def num_policies(self) -> int:
        """Policies per run."""
        return len(self.objectives)

    @property
    def num_blocks(self) -> int:
        """Blocks of envs per run that have an owner each: as shares says, or one if the policies take turns."""
        return 1 if self.collection == "alternating" else sum(self.env_shares)

    @property
    def env_shares(self) -> Tuple[int, ...]:
        """Blocks of envs of each policy."""
        return self.shares or (1,) * self.num_policies

    @property
    def uses(self) -> Tuple[Tuple[int, ...], ...]:
        """Per policy, the others whose rows it learns from."""
        every = tuple(range(self.num_policies))
        shaped = tuple(k for k in every if self.objectives[k] != "task")
        if self.share_data in ("heuristic", "guided"):
            first = every if self.share_data == "guided" else shaped
            given = {q: first if q == 0 else shaped for q in shaped}
        else:
            learns = {"none": (), "both": every, "pi": (0,), "reference": every[1:]}[self.share_data]
            given = dict.fromkeys(learns, every)
        return tuple(tuple(k for k in given.get(q, ()) if k != q) for q in every)

    @property
    def compares_windows(self) -> bool:
        """Whether J is compared by windows of whole episodes."""
        return self.constraint == "references" or self.contrast == "episode_window" or self.partner_pull > 0.0

    @property
    def policy_names(self) -> Tuple[str, ...]:
        """Names used in metrics and checkpoints: pi, and pi_h, pi_j or pi_sum for one that maximises h, r or their sum;
        numbered where there are several."""
        kinds = {"task": "pi_j", "heuristic": "pi_h"}
        wanted = [kinds.get(o, "pi_h" if self.num_policies == 2 else "pi_sum") for o in self.objectives[1:]]
        seen: Dict[str, int] = {}
        names = ["pi"]
        for name in wanted:
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else "%s%d" % (name, seen[name]))
        return tuple(names)

    @property
    def sum_reward(self) -> bool:
        """Whether channel 1 is a shaped reward, with the only critic that is trained."""
        return self.shaping.kind != "none"

    @property
    def needs_potential(self) -> bool:
        """Whether the environments must report Phi(s)."""
        return self.shaping.kind == "potential" and self.shaping.potential == "state"

    def critic_channels(self) -> Tuple[Tuple[bool, bool], ...]:
        """Per policy, which of the value channels [r, h or shaped] its critic is trained on.

        A policy that never looks at r has no reason to fit it, except that the constraint compares both on r.
        """
        both = (True, True)
        used = {"task": (True, False), "heuristic": (False, True), "sum": both, "constrained": both, "lagrangian": both}
        if self.constraint in ("reference", "references", "eipo"):
            return (both,) * self.num_policies
        if self.sum_reward:
            return ((False, True),)
        return tuple(used[o] for o in self.objectives)


# Keys that ask for a second policy, and the value of each that asks for none.
PAIR_KEYS: Dict[str, Any] = {
    "share_data": "none",
    "foreign_advantage": "owner",
    "collection": ("halves", "members"),
    "whitening": ("owner", "none"),
    "critic_data": "own",
    "minibatch_order": "stratified",
    "frozen_reference": None,
    "reference_noise": 0.0,
    "ratio_anchor": "behaviour",
    "partner_pull": 0.0,
    "common_start": False,
}


def in_effect(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """What the keys stand at that mean nothing to the method ``settings`` and that it leaves at their defaults.

    So a method with one policy needs no line that denies a second one, and the settings of a run say what it does.
    """
    usual = {f.name: f.default for f in fields(MethodConfig)}
    found: Dict[str, Any] = {}
    if len(settings.get("objectives") or ()) == 1:
        found.update(share_data="none", foreign_advantage="owner")
    if settings.get("constraint", "none") != "reference":
        found.update(contrast="raw_gae")
    return {key: value for key, value in found.items() if settings.get(key, usual[key]) == usual[key]}


def asks_for_a_partner(key: str, value: Any) -> bool:
    """Whether ``algo.<key>=<value>`` makes no sense for a method with one policy."""
    if key not in PAIR_KEYS:
        return False
    harmless = PAIR_KEYS[key]
    return value not in (harmless if isinstance(harmless, tuple) else (harmless,))


def method_from_config(cfg: Mapping[str, Any]) -> MethodConfig:
    """Build a MethodConfig from a mapping (cfg/algo/*.yaml); what it leaves out is at its default.

    Raises:
        ValueError: an unknown key, a value that does not exist, or values that do not go together.
    """
    cfg = dict(cfg)
    multiplier = dict(cfg.pop("multiplier", None) or {})
    shaping = dict(cfg.pop("shaping", None) or {})
    references = dict(cfg.pop("references", None) or {})
    _check_keys("algo", cfg, MethodConfig)
    _check_keys("algo.multiplier", multiplier, MultiplierConfig)
    _check_keys("algo.shaping", shaping, ShapingConfig)
    _check_keys("algo.references", references, ReferencesConfig)
    for key in ("objectives", "shares"):
        if key in cfg:
            cfg[key] = tuple(cfg[key] or ())
    return MethodConfig(
        multiplier=MultiplierConfig(**multiplier),
        shaping=ShapingConfig(**shaping),
        references=ReferencesConfig(**references),
        **cfg,
    )


def _check_choices(where: str, config: Any, choices: Mapping[str, Tuple[str, ...]]) -> None:
    for key, valid in choices.items():
        if getattr(config, key) not in valid:
            raise ValueError("unknown %s.%s %r; valid: %s" % (where, key, getattr(config, key), ", ".join(valid)))


def _check_keys(where: str, given: Mapping[str, Any], cls: Any) -> None:
    known = {f.name for f in fields(cls)}
    extra = sorted(set(given) - known)
    if extra:
        raise ValueError("unknown key %s.%s; valid: %s" % (where, extra[0], ", ".join(sorted(known))))
