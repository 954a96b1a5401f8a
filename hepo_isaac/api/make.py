"""``hepo_isaac.make``: environments of a task in one line, settled and judged as on the command line."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from hepo_isaac.api.rewards import Reward, heuristic_function, reward_function, try_heuristic
from hepo_isaac.api.settings import dotted, environment_config
from hepo_isaac.api.single import HepoEnv
from hepo_isaac.api.vector import OUTPUTS, RENDER_MODES, HepoVectorEnv
from hepo_isaac.envs.heuristic import Heuristic, HeuristicFunction
from hepo_isaac.envs.make import make_env, reseed
from hepo_isaac.errors import UserError, unknown
from hepo_isaac.runs.launch import announce
from hepo_isaac.sim.engines import ENGINES

# Settings that are arguments of make, under which name; and those that mean nothing without a training.
ARGUMENTS = {"task": "task", "sim": "engine", "device": "device", "seed": "seed", "num_envs": "num_envs"}
OF_TRAININGS = ("algo", "train")


def make(
    task: Union[str, os.PathLike[str]],
    num_envs: int = 64,
    heuristic: Union[str, Heuristic, None] = None,
    engine: str = "auto",
    device: str = "auto",
    seed: int = 0,
    *,
    reward: Reward = "task",
    output: str = "numpy",
    render_mode: Optional[str] = None,
    render_envs: Union[int, Sequence[int], str] = 0,
    random_start: bool = False,
    settings: Optional[Mapping[str, Any]] = None,
    **overrides: Any,
) -> HepoVectorEnv:
    """Environments of a task as a ``gymnasium.vector.VectorEnv``.

    Args:
        task: one of ``hepo-isaac tasks``, of an installed plug-in, or ``path/to/x.py:Class``.
        num_envs: N, stepped together.
        heuristic: the shaping h: a name of the task's own, ``package.module:function``, or a function that takes the
            task's state and returns (N,) or a dict of such terms; None is the task's default.
        engine: as ``sim=`` on the command line; auto is MuJoCo C on a CPU and MuJoCo Warp on an NVIDIA GPU.
        device: cpu, cuda, cuda:1 …; auto is what the engine runs on.
        seed: of everything random, until ``reset(seed=…)`` gives another.
        reward: what ``step`` returns as the reward: "task" (r), "heuristic" (h), "sum" (r + h) or a function of both.
            Both are in infos in any case.
        output: "numpy" or "torch"; with "torch" everything stays on the device and nothing waits for it.
        render_mode: "rgb_array" or None.  render_envs: which envs ``render`` shows: one, several or "all", which
            gymnasium's RecordVideo wants. A picture takes tens of milliseconds.
        random_start: let first episodes begin at a random time of theirs, so that ends do not come all at once.
        settings, overrides: any other setting of docs/settings.md: ``settings={"task.physics.substeps": 4}`` or, with
            two underscores for a dot, ``task__physics__substeps=4``.

    Raises:
        UserError: what the command line would refuse, in its words.
    """
    function = reward_function(reward)
    _check_choices(output, render_mode)
    given = dotted(settings, overrides)
    for key in given:
        group = key.split(".")[0]
        if key in ARGUMENTS or key == "heuristic":
            raise UserError("%s is an argument of make: say %s=…, not in settings" % (key, ARGUMENTS.get(key, key)))
        if group in OF_TRAININGS:
            raise UserError("%s is a setting of trainings, which environments do not have: take it out" % key)
    mine = None if heuristic is None or isinstance(heuristic, str) else heuristic_function(heuristic)
    # The method means nothing to environments; that of one policy asks nothing of their number.
    chosen: Dict[str, Any] = {"task": os.fspath(task) if isinstance(task, os.PathLike) else task, "algo": "ppo_h"}
    chosen.update(sim=engine, seed=seed, num_envs=num_envs)
    if device != "auto":  # else it may be given under another name, as sim_device
        chosen["device"] = device
    if isinstance(heuristic, str):
        chosen["heuristic"] = heuristic
    cfg = environment_config({**chosen, **given})
    shown = _render_envs(render_envs, int(cfg["num_envs"]))
    if render_mode is not None and not ENGINES[cfg["sim"]["name"]].films:
        raise UserError(
            "render_mode=%r: task=%s on engine %s cannot be drawn; take render_mode out"
            % (render_mode, cfg["task"]["name"], cfg["sim"]["name"])
        )
    announce(cfg, 1)
    return build(cfg, mine, function, output, render_mode, shown, random_start)


def build(
    cfg: Mapping[str, Any],
    heuristic: Optional[HeuristicFunction],
    reward: Any,
    output: str = "numpy",
    render_mode: Optional[str] = None,
    render_envs: Sequence[int] = (0,),
    random_start: bool = False,
) -> HepoVectorEnv:
    """Environments of a resolved configuration."""
    env = make_env(cfg, random_start, heuristic)
    try:
        if heuristic is not None or ":" in str(cfg["heuristic"]):
            try_heuristic(env.task.heuristic, env.task.state())
            reseed(env, int(cfg["seed"]))  # one that draws random numbers has drawn some
        return HepoVectorEnv(env, cfg, reward, output, render_mode, render_envs, random_start)
    except BaseException:
        env.close()
        raise


def make_single(task: str, **arguments: Any) -> HepoEnv:
    """One environment as a ``gymnasium.Env``: what ``gymnasium.make("hepo_isaac/<task>-v0")`` calls.

    Args:
        arguments: those of ``make`` but num_envs and output.
    """
    for name in ("num_envs", "output", "render_envs"):
        if name in arguments:
            raise UserError("%s means nothing to one environment: take it out, or call gymnasium.make_vec" % name)
    return HepoEnv(make(task, num_envs=1, **arguments))


def _check_choices(output: str, render_mode: Optional[str]) -> None:
    if output not in OUTPUTS:
        raise unknown("output", str(output), OUTPUTS)
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise unknown("render_mode", str(render_mode), RENDER_MODES)


def _render_envs(given: Union[int, Sequence[int], str], num_envs: int) -> Sequence[int]:
    if given == "all":
        return range(num_envs)
    chosen: List[Any] = list(given) if isinstance(given, (list, tuple, range, str)) else [given]
    for index in chosen:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < num_envs:
            raise UserError("render_envs=%s: expected numbers of envs, 0 to %d, or 'all'" % (given, num_envs - 1))
    return chosen
