"""Roll one task on one engine, from its own start states or from those of another engine's recording."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.config import check_machine, cuda_available, plain, resolve, validate
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import StepResult
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.errors import UserError
from hepo_isaac.locate import cfg_dir
from hepo_isaac.overrides import compose
from hepo_isaac.runs.parity.recording import Recording, positions
from hepo_isaac.runs.record import metadata
from hepo_isaac.runs.record.steps import Steps
from hepo_isaac.sim.engines import CUDA_ENGINE, ENGINES
from hepo_isaac.sim.registry import WARP_CPU, resolve_engine

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # control steps at which departures are reported
GRID = 64  # random actions are multiples of 1 / GRID, which compress
STATE = ("dof_pos", "dof_vel", "root_state", "dof_target_pos")
BELOW_1 = np.nextafter(np.float32(1.0), np.float32(0.0))
Say = Callable[[str], None]
Parts = Dict[str, np.ndarray]


class StepStreams(Streams):
    """Random numbers that depend on seed, control step and order alone: not on the engine, device or torch version.

    So a goal that is drawn in the middle of an episode is the same on both sides. NumPy has frozen the streams of
    RandomState.
    """

    def __init__(self, seed: int, num_envs: int, device: torch.device) -> None:
        super().__init__([torch.Generator()], num_envs, device)
        self._seed, self._step, self._counts = seed, 0, {}  # type: int, int, Dict[str, int]

    def begin(self, step: int) -> None:
        """From here on the draws are those of control step ``step``; 0 is the reset before the first."""
        self._step, self._counts = step, {}

    def rand(self, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        values = self._source("rand").random_sample((self.num_envs, *shape)).astype(np.float32)
        return self._tensor(np.minimum(values, BELOW_1))  # what is below 1 may round up to it

    def randn(self, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        return self._tensor(self._source("randn").standard_normal((self.num_envs, *shape)).astype(np.float32))

    def randint(self, high: int, *shape: int, mask: Optional[Tensor] = None) -> Tensor:
        return self._tensor(self._source("randint").randint(high, size=(self.num_envs, *shape)).astype(np.int64))

    def _source(self, kind: str) -> np.random.RandomState:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return np.random.RandomState([self._seed, self._step, len(kind), count])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


# ---- settings -----------------------------------------------------------------------------------------------------


def settings(engine: str, overrides: Sequence[str], num_envs: int, run: Optional[str]) -> Dict[str, Any]:
    """The resolved configuration of a task on ``engine``; with ``run``, that of the run folder.

    Where there is no GPU, mujoco_warp runs on Warp's own CPU device.

    Raises:
        UserError: settings that do not exist, an engine that this machine or this task does not have, a run of
            another task.
    """
    cuda = cuda_available()
    on_warp_cpu = engine == CUDA_ENGINE and not cuda
    given = [*engine_overrides(engine, overrides), "sim=" + engine, "num_envs=%d" % num_envs]
    if on_warp_cpu:
        resolve_engine(engine, WARP_CPU)  # says what is missing
        given.append("device=cpu")
    if not any(o.startswith("budget=") for o in given):
        given.append("budget=paper")  # a budget may change the task; one that depends on the machine would
    if run is None:
        settled = resolve(compose(given), given, cuda)
    else:
        settled = _of_run(run, given, cuda)
    if not on_warp_cpu:
        check_machine(settled, cuda)
    validate(settled, training=False)
    return plain(settled)


def engine_overrides(engine: str, overrides: Sequence[str]) -> List[str]:
    """``overrides`` without options that belong to other engines; ``device`` is nothing to one that knows only one."""
    from omegaconf import OmegaConf

    options: Any = OmegaConf.load(cfg_dir() / "sim" / (engine + ".yaml"))
    kept = []
    for override in overrides:
        key = override.partition("=")[0]
        if key.startswith("sim.") and key.split(".")[1] not in options:
            continue
        if key == "device" and ENGINES[engine].devices == ("cpu",):
            continue
        kept.append(override)
    return kept


def _of_run(run: str, given: Sequence[str], cuda: bool) -> Any:
    from hepo_isaac.runs.play.command import locate_checkpoint, run_settings
    from hepo_isaac.runs.record.stored import read_run

    folder, _ = locate_checkpoint(run)
    if folder is None:
        raise UserError("run=%s lies in no run folder; expected a run folder or a checkpoint in one" % run)
    of_run = read_run(folder.path, "trust=true" in given)
    cfg = compose([*given, "algo=" + str(of_run.algo.name)])
    cfg.checkpoint = run
    # budget is settled in a run's configuration
    if "task" in [o.partition("=")[0] for o in given] and cfg.task.name != of_run.task.name:
        raise UserError("run=%s was trained with task=%s, not %s" % (run, of_run.task.name, cfg.task.name))
    return run_settings(of_run, cfg, [o for o in given if not o.startswith("budget=")], cuda)


# ---- states -------------------------------------------------------------------------------------------------------


def snapshot(env: TaskEnv) -> Dict[str, np.ndarray]:
    """Everything that ``put`` can put back, on any engine: see Recording."""
    parts = {name: getattr(env.sim, name) for name in STATE}
    parts["progress"] = env.progress
    parts.update({"task/" + k: v for k, v in env.task.get_state().items()})
    return {k: _host(v) for k, v in parts.items()}


def put(env: TaskEnv, state: Mapping[str, np.ndarray], dofs: Sequence[str], actors: Sequence[str]) -> None:
    """Put every environment into ``state`` (a snapshot with these names of joints and actors); forgets warm starts."""
    sim, device = env.sim, env.device
    columns = positions(sim.dof_names, dofs, "joint")
    rows = positions(sim.actor_names, actors, "actor")
    values = [state[name][:, rows if name == "root_state" else columns] for name in STATE]
    everyone = torch.ones(env.num_envs, dtype=torch.bool, device=device)
    sim.set_state(everyone, *(torch.from_numpy(v).to(device) for v in values))
    own = {k[len("task/") :]: torch.from_numpy(v.copy()).to(device) for k, v in state.items() if k.startswith("task/")}
    env.task.load_state(own)
    env.progress.copy_(torch.from_numpy(state["progress"]))


def _host(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().copy()
    return np.asarray(value)


# ---- rollouts -----------------------------------------------------------------------------------------------------


class Roller:
    """One task on one engine.

    Args:
        cfg: resolved configuration.  seed: of start states, actions and whatever the task draws.
        reference: recording whose start states, actions and single steps are taken; None makes new ones.
    """

    def __init__(self, cfg: Mapping[str, Any], seed: int, reference: Optional[Recording]) -> None:
        self._seed, self._reference, self._engine = seed, reference, str(cfg["sim"]["name"])
        self.env = _environments({**cfg, "seed": seed})
        self._streams = StepStreams(seed, self.env.num_envs, self.env.device)
        self._ordinary = self.env.task.streams
        self.env.task.streams = self._streams
        self._names = (list(self.env.sim.dof_names), list(self.env.sim.actor_names))
        if reference is not None:
            self._names = (reference.meta["names"]["dof"], reference.meta["names"]["actor"])
        self._last: Any = None
        self._before_reset: Optional[Dict[str, Tensor]] = None
        self.env.before_reset = self._remember

    def _remember(self, mask: Tensor) -> None:
        """What an episode ended in is lost with the task's reset."""
        self._before_reset = {name: getattr(self.env.sim, name).clone() for name in STATE[:3]}

    def start(self) -> Dict[str, np.ndarray]:
        """Put the start states in place and return them."""
        self._streams.begin(0)
        self.env.reset()
        state = snapshot(self.env) if self._reference is None else self._reference.group("start")
        self._put(state)
        return state

    def _put(self, state: Mapping[str, np.ndarray]) -> None:
        put(self.env, state, *self._names)

    def free(
        self, act: Callable[[int, Tensor], np.ndarray], marks: Sequence[int], singles: Sequence[int], steps: int
    ) -> Tuple[np.ndarray, Parts, Parts]:
        """Roll ``steps`` control steps without a correction; returns (actions, outcomes, states before ``singles``).

        act: step from 0 and observations (N, O) to actions (N, K).
        """
        obs = self.env.observe()
        moves: List[np.ndarray] = []
        seen: Dict[str, List[np.ndarray]] = {}
        states: Dict[str, List[np.ndarray]] = {}
        with Steps(self._engine, steps, "control steps") as progress:
            for step in range(steps):
                if step in singles:
                    _append(states, snapshot(self.env))
                moves.append(act(step, obs))
                result = self._step(step, moves[-1])
                obs = result.obs
                _append(seen, self._outcome(result, step + 1 in marks))
                progress.at(step + 1)
        return np.stack(moves), _stack(seen), _stack(states)

    def single(self, moves: np.ndarray, singles: Sequence[int], states: Parts) -> Parts:
        """One control step from each of ``states`` (S, N, …); returns their outcomes."""
        seen: Dict[str, List[np.ndarray]] = {}
        with Steps(self._engine, len(singles), "single steps") as progress:
            for row, step in enumerate(singles):
                self._put({k: v[row] for k, v in states.items()})
                _append(seen, self._outcome(self._step(step, moves[step]), True))
                progress.at(row + 1)
        return _stack(seen)

    def _step(self, step: int, move: np.ndarray) -> StepResult:
        self._streams.begin(step + 1)
        self._before_reset = None
        self._last = self.env.step(torch.from_numpy(move).to(self.env.device))
        return self._last

    def _outcome(self, result: StepResult, with_obs: bool) -> Dict[str, np.ndarray]:
        parts: Dict[str, Any] = {k: getattr(self.env.sim, k) for k in STATE[:3]}
        parts.update(self._before_reset or {})
        for name in ("rewards", "terms", "metrics", "terminated", "time_out", "bad"):
            parts[name] = getattr(result, name)
        if with_obs:
            parts["obs"] = result.final_obs[:, : self.env.task.num_obs]
        return {k: _host(v) for k, v in parts.items()}

    def release(self) -> TaskEnv:
        """The environments with their own random numbers again; no more rollouts."""
        self.env.task.streams = self._ordinary
        self.env.before_reset = None
        return self.env

    def names(self) -> Dict[str, List[str]]:
        """Names of joints, actors, actors that move freely, reward terms and metrics."""
        sim = self.env.sim
        free = [a.name for a in sim.spec.actors if not a.fixed]
        return {
            "dof": list(sim.dof_names),
            "actor": list(sim.actor_names),
            "free": free,
            "term": list(self._last.term_names),
            "metric": list(self._last.metric_names),
        }


def _environments(cfg: Mapping[str, Any]) -> TaskEnv:
    engine = cfg["sim"]["name"]
    try:
        return make_env(cfg, random_start=False)
    except ImportError as error:
        raise UserError(
            "%s cannot be used by %s: %s; python.%s= takes the path of an interpreter that has it"
            % (engine, sys.executable, error, engine)
        ) from error


def _append(lists: Dict[str, List[np.ndarray]], row: Mapping[str, np.ndarray]) -> None:
    for name, value in row.items():
        lists.setdefault(name, []).append(value)


def _stack(lists: Mapping[str, List[np.ndarray]]) -> Dict[str, np.ndarray]:
    return {name: np.stack(rows) for name, rows in lists.items()}


def roll(job: Mapping[str, Any], reference: Optional[Recording] = None, say: Say = print) -> Recording:
    """Roll what ``job`` describes.

    Args:
        job: engine, overrides (of the configuration), steps, num_envs, seed, actions (random, zero or run), run
            (folder, or None), singles (how many single steps), episodes (of the closed loop with a run).
        reference: the recording of another engine, whose start states and actions are replayed; its settings win.
        say: takes lines for the user.

    Raises:
        UserError: see ``settings``.
    """
    job = dict(job)
    if reference is not None:
        job.update({k: reference.meta[k] for k in ("steps", "num_envs", "seed", "actions")})
    steps, num_envs, seed = int(job["steps"]), int(job["num_envs"]), int(job["seed"])
    cfg = settings(job["engine"], job["overrides"], num_envs, job["run"])
    device = _device(cfg)
    slow = ": its kernels compile for minutes the first time" if ENGINES[cfg["sim"]["name"]].compiles else ""
    say("%s on %s, %d environments × %d control steps%s" % (cfg["sim"]["name"], device, num_envs, steps, slow))
    began = time.monotonic()
    marks = sorted({k for k in MARKS if k <= steps} | {steps})
    singles = evenly(steps, int(job["singles"])) if reference is None else reference.meta["single_steps"]
    roller = Roller(cfg, seed, reference)
    try:
        start = roller.start()
        act = _actions(cfg, job, roller.env) if reference is None else _replayed(reference)
        moves, free, states = roller.free(act, marks, singles, steps)
        if reference is not None:
            states = reference.group("states")
        single = roller.single(moves, singles, states)
        meta = {k: job[k] for k in ("engine", "actions", "steps", "num_envs", "seed", "overrides")}
        meta.update(_about(cfg, roller, device, singles, marks))
        meta["seconds"] = round(time.monotonic() - began, 1)
        if job["run"] is not None:
            meta["evaluation"] = _closed_loop(roller.release(), cfg, job, say)
    finally:
        roller.env.close()
    groups = {"start": start, "states": states, "free": free, "single": single}
    arrays = {"%s/%s" % (group, k): v for group, parts in groups.items() for k, v in parts.items()}
    return Recording(meta, {"actions": moves, **arrays})


def evenly(steps: int, count: int) -> List[int]:
    """``count`` different numbers of 0 … steps - 1, evenly spread, with the first and the last."""
    return sorted({int(round(x)) for x in np.linspace(0, steps - 1, min(count, steps))})


def _device(cfg: Mapping[str, Any]) -> str:
    if cfg["sim"]["name"] == CUDA_ENGINE and cfg["device"] == "cpu":
        return WARP_CPU + " (Warp's kernels without a GPU)"
    return str(cfg["device"])


def _about(
    cfg: Mapping[str, Any], roller: Roller, device: str, singles: Sequence[int], marks: Sequence[int]
) -> Dict[str, Any]:
    """Settings and origin of a recording."""
    env, about = roller.env, metadata.collect()
    return {
        "task": cfg["task"]["name"],
        "heuristic": cfg["heuristic"],
        "success": cfg["task"].get("success"),
        "task_settings": {k: v for k, v in cfg["task"].items() if k not in ("engines", "camera")},
        "sim": cfg["sim"],
        "device": device,
        "single_steps": list(singles),
        "obs_steps": list(marks),
        "control_dt": env.sim.spec.control_dt,
        "names": roller.names(),
        "overflows": int(env.sim.overflow_count),
        "versions": about["versions"],
        "hardware": about["hardware"],
        "git": about["git"],
    }


# ---- actions ------------------------------------------------------------------------------------------------------


def _actions(cfg: Mapping[str, Any], job: Mapping[str, Any], env: TaskEnv) -> Callable[[int, Tensor], np.ndarray]:
    shape = (env.num_envs, env.num_actions)
    if job["actions"] == "zero":
        return lambda step, obs: np.zeros(shape, np.float32)
    if job["actions"] == "run":
        policy = _policy(cfg, job, env)
        return lambda step, obs: _host(policy(obs).clamp(-1.0, 1.0)).astype(np.float32)
    source = np.random.RandomState(int(job["seed"]))
    return lambda step, obs: (source.randint(-GRID, GRID + 1, size=shape) / GRID).astype(np.float32)


def _replayed(reference: Recording) -> Callable[[int, Tensor], np.ndarray]:
    return lambda step, obs: reference.arrays["actions"][step]


def _policy(cfg: Mapping[str, Any], job: Mapping[str, Any], env: TaskEnv) -> Callable[[Tensor], Tensor]:
    """Mean actions of the run's policy π."""
    from hepo_isaac.agents.player import HepoPlayer
    from hepo_isaac.agents.register import runner_params
    from hepo_isaac.envs.rl_games import RlGamesVecEnv

    params = runner_params(cfg, [int(job["seed"])])
    params["config"]["player"] = {"episodes": 1, "deterministic": True, "policy": "pi", "record": False}
    player = HepoPlayer(params, RlGamesVecEnv(env))
    player.set_weights(_checkpoint(cfg, job)["agent"])
    return player.act


def _checkpoint(cfg: Mapping[str, Any], job: Mapping[str, Any]) -> Dict[str, Any]:
    from hepo_isaac.runs.play.command import locate_checkpoint
    from hepo_isaac.runs.record.checkpoint import load_checkpoint

    file = locate_checkpoint(str(Path(job["run"])))[1]
    return load_checkpoint(file, cfg["task"]["name"], cfg["algo"]["name"])


def _closed_loop(env: TaskEnv, cfg: Mapping[str, Any], job: Mapping[str, Any], say: Say) -> Dict[str, Any]:
    """The policies' own episodes: what runs.evaluate.summarise returns."""
    from hepo_isaac.runs.play.command import evaluate_in

    episodes = int(job["episodes"])
    say("%d episodes of each policy of %s" % (episodes, job["run"]))
    chosen = {**cfg, "eval": {**cfg["eval"], "episodes": episodes}, "num_envs": env.num_envs, "seed": job["seed"]}
    return evaluate_in(env, chosen, _checkpoint(cfg, job))
