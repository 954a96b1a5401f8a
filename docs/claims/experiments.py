"""What is trained for docs/claims.md: arms, problems, and how many seeds of which serve which claim. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

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
VARIANTS = (
    _variant("hepo_alpha0", "multiplier.lr=0.0"),
    _variant("hepo_lr1e-4", "multiplier.lr=0.0001"),
    _variant("hepo_lr1e-3", "multiplier.lr=0.001"),
    _variant("hepo_lr1e-2", "multiplier.lr=0.01"),
    _variant("hepo_lr5e-2", "multiplier.lr=0.05"),
    _variant("hepo_episode_return", "contrast=episode_return"),
    _variant("hepo_start_value", "contrast=start_value"),
    _variant("hepo_no_sharing", "share_data=none"),
    _variant("hepo_pi_learns", "share_data=pi"),
    _variant("hepo_all_rows", "off_policy_fraction=1.0"),
    _variant("hepo_joint_whitening", "whitening=joint"),
    _variant("hepo_k1", "multiplier.median_window=1"),
    _variant("hepo_ref_j", "objectives=[constrained,task]"),
)
PRESETS = ("hepo", "hepo_release", "hepo_release2", "ppo_jh_decoupled")
_PLAIN = PRESETS + ("hepo_alternating", "ppo_h", "ppo_j", "ppo_jh", "pbrs", "hurl", "eipo", "annealing")
ARMS: Dict[str, Arm] = {a.name: a for a in [*(Arm(n, n) for n in _PLAIN), *VARIANTS]}

# ---- problems -----------------------------------------------------------------------------------------------------

GROUPS: Dict[str, Tuple[str, ...]] = {
    "aligned": ("Park2D", "KeyDoor", "MountainCar", "Push2D"),
    "imperfect": ("EffortReach", "QuadraticPoint", "Survival", "TwoPeaks"),
    "deceptive": ("Honeypot", "Maze2D", "RingRace", "TwoArm"),
}
# The aligned tasks last: every method solves them.
SUITE: Tuple[str, ...] = GROUPS["imperfect"] + GROUPS["deceptive"] + GROUPS["aligned"]
TELLING = ("EffortReach", "TwoArm", "QuadraticPoint", "Survival")  # where the first runs of the presets differ
HUMAN = tuple("Push2D/h%d" % i for i in range(1, 13))
QUALITY = tuple("Push2D/q%d" % i for i in range(11))
OTHERS = ("Push2D/reversed", "Push2D/sparse", "Push2D/noise")
# r is nonzero in a small part of the states only.
SPARSE = ("KeyDoor", "MountainCar", "Push2D", "Maze2D", "RingRace", "Honeypot")
DENSE_REVERSED = "QuadraticPoint/opposite"
SPARSE_REVERSED = "Push2D/reversed"
HACKABLE = GROUPS["deceptive"] + ("Honeypot+honey",)
SCALE_TASKS = ("Push2D", "EffortReach", "RingRace")
SCALES = {"0.01": "hundredth", "100": "hundred", "1000": "thousand"}
SCALED = tuple("%s*%s" % (task, c) for task in SCALE_TASKS for c in SCALES)
FRANKA = "FrankaCabinet"
FRANKA_ARMS = ("ppo_h", "ppo_j", "ppo_jh_decoupled", "pbrs", "hepo", "hepo_release")


def _problems() -> List[Problem]:
    named = [
        Problem(p, p.split("/")[0], p.partition("/")[2] or "default")
        for p in SUITE + HUMAN + QUALITY + OTHERS + (DENSE_REVERSED,)
    ]
    # a user's heuristic: c times the task's own (scaled.py)
    scaled = [
        Problem("%s*%s" % (t, c), t, "docs.claims.scaled:%s_%s" % (t.lower(), word))
        for t in SCALE_TASKS
        for c, word in SCALES.items()
    ]
    return [
        *named,
        *scaled,
        Problem("Honeypot+honey", "Honeypot", overrides=("task.honey_reward=0.005",)),
        Problem(FRANKA, FRANKA, overrides=("budget=cpu", "train.max_iterations=640", "sim.threads=1")),
    ]


PROBLEMS: Dict[str, Problem] = {p.name: p for p in _problems()}

# ---- experiments, the most important first -------------------------------------------------------------------------

EXPERIMENTS: Tuple[Experiment, ...] = (
    # five seeds of everything that compares presets, so that there is an early picture of all of it …
    Experiment("core", ("C1", "C2", "C3", "C11", "C18", "preset"), ("hepo", "ppo_h"), SUITE, 5),
    Experiment(
        "early",
        ("preset",),
        ("ppo_jh_decoupled", "hepo_release", "hepo_alpha0", "hepo_episode_return", "hepo_no_sharing", "ppo_j"),
        TELLING,
        5,
    ),
    Experiment("rivals", ("C2", "C12", "preset"), ("ppo_jh_decoupled", "hepo_release", "hepo_alpha0"), SUITE, 5),
    Experiment(
        "preset",
        ("preset", "C12", "C16"),
        ("hepo_no_sharing", "hepo_pi_learns", "hepo_all_rows", "hepo_joint_whitening", "hepo_episode_return"),
        SUITE,
        5,
    ),
    Experiment("task", ("C2", "C5", "C9", "C18", "N3"), ("ppo_j",), SUITE, 5),
    Experiment("joint", ("C4", "E1"), ("hepo", "hepo_alternating"), SUITE, 5),
    Experiment(
        "preset2",
        ("preset", "C12"),
        ("hepo_start_value", "hepo_lr1e-4", "hepo_lr1e-3", "hepo_lr1e-2", "hepo_lr5e-2", "hepo_release2"),
        SUITE,
        5,
    ),
    Experiment("baselines", ("C2", "C6", "C7", "E1"), ("ppo_jh", "pbrs", "hurl", "eipo"), SUITE, 5),
    # … then the seeds that the key comparisons need, and the other claims
    Experiment("core_more", ("C1", "C3", "C11", "C18", "preset"), ("hepo", "ppo_h"), SUITE, 10),
    Experiment("rivals_more", ("C12", "preset"), ("ppo_jh_decoupled", "hepo_release", "hepo_alpha0"), SUITE, 10),
    Experiment("joint_more", ("C4", "E1"), ("hepo", "hepo_alternating"), SUITE, 10),
    Experiment("hack", ("C7", "E2"), ("hepo", "ppo_jh_decoupled", "ppo_jh"), GROUPS["deceptive"], 20),
    Experiment("binding", ("E2",), ("hepo", "hepo_alpha0", "ppo_h"), ("Honeypot+honey",), 10),
    Experiment("reversed", ("C9", "E3"), ("hepo", "ppo_h"), (SPARSE_REVERSED, DENSE_REVERSED), 10),
    Experiment("human", ("C8", "C10"), ("hepo", "ppo_h"), HUMAN, 5),
    Experiment("quality", ("N3", "C8"), ("hepo", "ppo_h"), QUALITY, 5),
    Experiment("others", ("C8",), ("hepo", "ppo_h"), OTHERS, 5),
    Experiment("sharing", ("C16",), ("hepo_no_sharing",), SUITE, 10),
    Experiment("slow_alpha", ("C12",), ("hepo_lr1e-4",), SUITE, 10),
    Experiment("reference", ("C5",), ("hepo", "hepo_ref_j"), SPARSE, 10),
    Experiment("median", ("C14",), ("hepo", "hepo_k1"), SPARSE, 5),
    Experiment("scale", ("C13",), ("hepo", "ppo_jh", "ppo_jh_decoupled"), SCALED, 5),
    Experiment("task_more", ("C2", "C18"), ("ppo_j",), SUITE, 10),
    Experiment("baselines_more", ("C2", "C6"), ("ppo_jh", "pbrs", "hurl", "eipo"), SUITE, 10),
    Experiment("quality_rivals", ("N3",), ("ppo_jh_decoupled", "pbrs"), QUALITY, 5),
    Experiment("franka", ("franka",), FRANKA_ARMS, (FRANKA,), 5, 1),
)
CLAIMS: Tuple[str, ...] = tuple(sorted({c for e in EXPERIMENTS for c in e.claims}))
