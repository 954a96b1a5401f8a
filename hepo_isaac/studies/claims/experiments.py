"""What is trained for docs/claims.md: arms, problems, and how many seeds of which serve which claim. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

# Part of what a run is: raised by hand when the agents learn something else than before with the same settings. Runs
# of earlier versions are stale. 1: until V-trace and the KL of a minibatch before its step; 2: since then; 3: alpha
# records no gap of episodes that are short because long ones cannot have ended yet, which bears on few runs (the rest
# are of version 2): those that compare episodes, on tasks whose episodes can end before their time.
LEARNER_VERSION = 3
ENDS_EARLY = (
    *("AllegroHand", "Ant", "Anymal", "BallBalance", "Cartpole", "Humanoid", "Ingenuity", "Quadcopter", "ShadowHand"),
    *("Honeypot", "Survival"),
)

SETTINGS = (
    "device=cpu",
    "evaluation_episodes=100",
    "tensorboard=false",
    "plot=false",
    "torch_threads=1",
    "checkpoint_every=100000",
    "keep_checkpoints=1",
)


@dataclass(frozen=True)
class Arm:
    """One method: an algorithm of cfg/algo and what it changes."""

    name: str
    algo: str
    overrides: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A task with a heuristic. name: as hepo-isaac compare has it, "Task" or "Task/heuristic"."""

    name: str
    task: str
    heuristic: str = "default"
    overrides: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Every arm on every problem with seeds 1 … ``seeds``. claims: those it serves. side_by_side: seeds per process."""

    name: str
    claims: Tuple[str, ...]
    arms: Tuple[str, ...]
    problems: Tuple[str, ...]
    seeds: int
    side_by_side: int = 10


# ---- arms ---------------------------------------------------------------------------------------------------------


def _variant(name: str, *overrides: str) -> Arm:
    return Arm(name, "hepo", tuple("algo." + o for o in overrides))


# One change of the preset each. Those that name what the preset already says share its runs.
NOISES = ("0.003", "0.01", "0.03", "0.1")  # spread of what is added to the weights of pi_H after every update
# Repairs of the preset, one on top of the other: the partner's rows are never divided by no spread at all; alpha by
# significant gaps over windows of whole episodes; no pull towards the partner; a pull that follows the evidence.
_MEMBERS = ("collection=members", "contrast=episode_return")
_WINDOWS = (
    "collection=members",
    "contrast=episode_window",
    "multiplier.rule=significance",
    "multiplier.lr=0.2",
    "multiplier.median_window=1",
    "multiplier.gradient_clip=5.0",
)
_ANCHORED = (*_WINDOWS, "ratio_anchor=old_policy")
REPAIRS = (
    _variant("hepo_spread", *_MEMBERS),
    _variant("hepo_windows", *_WINDOWS),
    _variant("hepo_anchored", *_ANCHORED),
    _variant("hepo_pull", *_ANCHORED, "partner_pull=0.3"),
)
VARIANTS = (
    *REPAIRS,
    _variant("hepo_owner", "foreign_advantage=owner"),
    _variant("hepo_no_sharing", "share_data=none"),
    _variant("hepo_pi_learns", "share_data=pi"),
    _variant("hepo_all_rows", "off_policy_fraction=1.0"),
    _variant("hepo_raw_gae", "contrast=raw_gae"),
    _variant("hepo_episode_return", "contrast=episode_return"),
    _variant("hepo_start_value", "contrast=start_value"),
    _variant("hepo_alpha0", "multiplier.lr=0.0"),
    _variant("hepo_lr1e-4", "multiplier.lr=0.0001"),
    _variant("hepo_lr5e-2", "multiplier.lr=0.05"),
    # as the preset: else it would differ in more than who acts and what V-trace needs
    Arm("hepo_alternating", "hepo_alternating", ("algo.contrast=episode_return",)),
    _variant("hepo_k1", "multiplier.median_window=1"),
    _variant("hepo_ref_j", "objectives=[constrained,task]"),
    # π of hepo has half of the environments to itself: the plain sum with as many, and as much of a batch.
    Arm("ppo_jh_half", "ppo_jh_decoupled", ("num_envs=64", "train.minibatch_size=256")),
    *(Arm("hepo_noise_" + n, "hepo", ("algo.reference_noise=" + n,)) for n in NOISES),
    # With ppo_jh_half, the portfolio that hepo_plus has to beat: three policies trained apart, the best one chosen.
    Arm("ppo_h_quarter", "ppo_h", ("num_envs=32", "train.minibatch_size=128")),
    Arm("ppo_j_quarter", "ppo_j", ("num_envs=32", "train.minibatch_size=128")),
)
PORTFOLIO = ("ppo_jh_half", "ppo_h_quarter", "ppo_j_quarter")
PRESETS = ("hepo", "hepo_release", "hepo_release2", "ppo_jh_decoupled")
_PLAIN = PRESETS + ("ppo_h", "ppo_j", "ppo_jh", "pbrs", "hurl", "eipo", "hepo_plus")
ARMS: Dict[str, Arm] = {a.name: a for a in [*(Arm(n, n) for n in _PLAIN), *VARIANTS]}

# ---- problems -----------------------------------------------------------------------------------------------------

GROUPS: Dict[str, Tuple[str, ...]] = {
    "aligned": ("Park2D", "KeyDoor", "MountainCar", "Push2D"),
    "imperfect": ("EffortReach", "QuadraticPoint", "Survival", "TwoPeaks"),
    "deceptive": ("Honeypot", "Maze2D", "RingRace", "TwoArm"),
}
# The aligned tasks last: every method solves them.
SUITE: Tuple[str, ...] = GROUPS["imperfect"] + GROUPS["deceptive"] + GROUPS["aligned"]
TELLING = ("EffortReach", "Survival", "TwoArm", "QuadraticPoint", "RingRace", "Honeypot")  # where presets differ
NOISY = ("EffortReach", "Push2D", "Survival")  # where noise is added to pi_H
HUMAN = tuple("Push2D/h%d" % i for i in range(1, 13))
QUALITY = tuple("Push2D/q%d" % i for i in range(11))
OTHERS = ("Push2D/reversed", "Push2D/sparse", "Push2D/noise")
# r is nonzero in a small part of the states only; of the six such tasks those that not every method solves, and Push2D.
SPARSE = ("Push2D", "Maze2D", "RingRace", "Honeypot")
DENSE_REVERSED = "QuadraticPoint/opposite"
SPARSE_REVERSED = "Push2D/reversed"
HACKABLE = GROUPS["deceptive"] + ("Honeypot+honey",)
SCALE_TASKS = ("Push2D", "EffortReach")
SCALES = {"0.01": "hundredth", "100": "hundred", "1000": "thousand"}
SCALED = tuple("%s*%s" % (task, c) for task in SCALE_TASKS for c in SCALES)
FRANKA = "FrankaCabinet"
# Robots at the demonstration's budget: task, and what is set besides. r of Anymal alone makes falling free
# (docs/parity/Anymal.md).
ROBOTS: Dict[str, Tuple[str, ...]] = {
    "Cartpole": (),
    "BallBalance": (),
    "Quadcopter": (),
    "Ingenuity": (),
    "Ant": (),
    "Anymal": ("task.alive_bonus=6",),
    "FrankaCabinet": (),
    "Humanoid": (),
}
ROBOT_PROBLEMS = tuple(task + "@demo" for task in ROBOTS)
# The robots' heuristics that invite hacking (docs/parity/); the arms that never see h are those of the table above.
HASTY: Tuple[str, ...] = ("Quadcopter/bad@demo", "Ant/two_sided@demo", "Anymal/bad@demo")
# J of random actions and of the reference run (docs/reference/README.md) where a task names no scores; set before the
# runs.
ROBOT_SCORES: Dict[str, Tuple[float, float]] = {
    "Ingenuity": (7.0, 901.0),
    "Ant": (-2.0, 2315.0),
    "Anymal": (1910.0, 13350.0),
    "Humanoid": (0.5, 1809.0),
}
HASTY_ARMS = ("ppo_h", "ppo_jh_decoupled", "hepo", "hepo_plus")
ROBOT_ARMS = ("ppo_h", "ppo_j", "ppo_jh_decoupled", "hepo", "hepo_plus")
# The paper's headline: FrankaCabinet with each of twelve heuristics that people wrote, at the budget of the references.
# A demonstration's budget (3.3 M steps): at cpu they take 27 hours of a core.
WRITTEN = tuple("FrankaCabinet/h%d@demo" % i for i in range(1, 13))
WRITTEN_ARMS = ("ppo_h", "ppo_jh", "ppo_jh_decoupled", "hepo_release", "hepo", "hepo_plus")
HOURS = ("franka", "robots", "hasty", "written")  # experiments that are trained where they are asked for alone
FRANKA_ARMS = ("ppo_h", "ppo_j", "ppo_jh_decoupled", "hepo", "hepo_release", "pbrs", "hepo_no_sharing")


def _demo(task: str) -> Tuple[str, ...]:
    return ("budget=demo", "sim.threads=1", *ROBOTS[task])


def _hasty(name: str) -> Problem:
    task, _, heuristic = name.partition("@")[0].partition("/")
    return Problem(name, task, heuristic, _demo(task))


def _problems() -> List[Problem]:
    named = [
        Problem(p, p.split("/")[0], p.partition("/")[2] or "default")
        for p in SUITE + HUMAN + QUALITY + OTHERS + (DENSE_REVERSED,)
    ]
    # a user's heuristic: c times the task's own (scaled.py)
    scaled = [
        Problem("%s*%s" % (t, c), t, "hepo_isaac.studies.claims.scaled:%s_%s" % (t.lower(), word))
        for t in SCALE_TASKS
        for c, word in SCALES.items()
    ]
    return [
        *named,
        *scaled,
        Problem("Honeypot+honey", "Honeypot", overrides=("task.honey_reward=0.005",)),
        *(Problem(t + "@demo", t, overrides=_demo(t)) for t in ROBOTS),
        *(_hasty(name) for name in HASTY),
        *(Problem(p, FRANKA, p.split("/")[1].partition("@")[0], ("budget=demo", "sim.threads=1")) for p in WRITTEN),
        # eight mini-epochs, as its runs were made with before the budget took five
        Problem(
            FRANKA, FRANKA, overrides=("budget=cpu", "train.max_iterations=640", "train.mini_epochs=8", "sim.threads=1")
        ),
    ]


PROBLEMS: Dict[str, Problem] = {p.name: p for p in _problems()}

# ---- experiments, the most important first -------------------------------------------------------------------------

EXPERIMENTS: Tuple[Experiment, ...] = (
    Experiment(
        "core", ("C1", "C2", "C3", "C4", "C11", "C18", "C19", "E1", "E2", "preset"), ("hepo", "ppo_h"), SUITE, 10
    ),
    Experiment("task", ("C2", "C6", "C9", "C18", "N3", "preset"), ("ppo_j",), SUITE, 10),
    Experiment("decoupled", ("C7", "preset"), ("ppo_jh_decoupled",), SUITE, 10),
    Experiment("release", ("preset",), ("hepo_release",), SUITE, 10),
    Experiment("human", ("C8", "C10"), ("hepo", "ppo_h"), HUMAN, 5),
    Experiment("quality", ("N3", "C8"), ("hepo", "ppo_h"), QUALITY, 5),
    Experiment("half", ("C7", "preset"), ("ppo_jh_half",), SUITE, 5),
    Experiment("others", ("C8",), ("hepo", "ppo_h"), OTHERS, 5),
    Experiment("hack", ("C7",), ("ppo_jh",), GROUPS["deceptive"], 10),
    Experiment("baselines", ("C2", "C6", "E1"), ("ppo_jh", "pbrs", "hurl", "eipo"), SUITE, 5),
    Experiment("joint", ("C4",), ("hepo_alternating",), SUITE, 5),
    Experiment("binding", ("E2",), ("hepo", "hepo_alpha0", "ppo_h"), ("Honeypot+honey",), 10),
    Experiment("reversed", ("C9", "E3"), ("hepo", "ppo_h"), (SPARSE_REVERSED, DENSE_REVERSED), 5),
    Experiment("sharing", ("C16", "preset"), ("hepo_no_sharing",), SUITE, 5),
    Experiment("alpha", ("C3", "C12", "preset"), ("hepo_alpha0",), SUITE, 5),
    Experiment("foreign", ("C4", "preset"), ("hepo_owner",), TELLING, 5),
    Experiment("contrast", ("E2", "preset"), ("hepo_raw_gae", "hepo_episode_return"), TELLING, 5),
    Experiment("noise", ("C17",), ("hepo", *("hepo_noise_" + n for n in NOISES)), NOISY, 5),
    Experiment("scale", ("C13",), ("hepo", "ppo_jh", "ppo_jh_decoupled"), SCALED, 5),
    Experiment("reference", ("C5",), ("hepo", "hepo_ref_j"), SPARSE, 5),
    Experiment("slow_alpha", ("C12", "preset"), ("hepo_lr1e-4",), SUITE, 5),
    Experiment("median", ("C14",), ("hepo", "hepo_k1"), SPARSE, 5),
    Experiment(
        "variants",
        ("preset",),
        ("hepo_all_rows", "hepo_pi_learns", "hepo_start_value", "hepo_lr5e-2", "hepo_release2"),
        ("EffortReach", "Survival", "TwoArm", "RingRace"),
        5,
    ),
    Experiment("plus", ("plus", "C19", "preset"), ("hepo_plus",), SUITE, 10),
    Experiment("portfolio", ("plus",), PORTFOLIO, SUITE, 5),
    Experiment("repairs", ("preset",), tuple(a.name for a in REPAIRS), SUITE, 5),
    Experiment("robots", ("robots", "C19"), ROBOT_ARMS, ROBOT_PROBLEMS, 3, 3),
    Experiment("hasty", ("hasty",), HASTY_ARMS, HASTY, 3, 3),
    Experiment("written", ("written", "C20", "C21"), WRITTEN_ARMS, WRITTEN, 3, 3),
    Experiment("franka", ("franka",), FRANKA_ARMS, (FRANKA,), 5, 1),
)
CLAIMS: Tuple[str, ...] = tuple(sorted({c for e in EXPERIMENTS for c in e.claims}))
