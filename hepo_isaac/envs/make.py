"""Build a TaskEnv from a resolved configuration: scene, engine, task."""

from __future__ import annotations

from typing import Any, Mapping, Optional

import torch

from hepo_isaac.envs.heuristic import RANDOM, HeuristicFunction
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class
from hepo_isaac.sim.registry import make_simulation

# The environments' random stream must not be the policies': both start from the run's seed.
ENV_STREAM = 0x9E3779B9
HEURISTIC_STREAM = 0x7F4A7C15  # of a heuristic that asks for random numbers, apart from both


def make_env(
    cfg: Mapping[str, Any], random_start: bool = True, heuristic: Optional[HeuristicFunction] = None
) -> TaskEnv:
    """Environments of ``cfg["task"]`` on the engine of ``cfg["sim"]``.

    Args:
        cfg: resolved configuration with keys task, sim, device, num_envs (of one run), and seed or run_seeds (one
            per run trained side by side: each gets num_envs environments and a random stream of its own). A key
            ``potential`` names Phi(s), as a heuristic is named.
        random_start: see TaskEnv; evaluations start all episodes at their beginning.
        heuristic: a function at hand in place of the one that ``cfg`` names.

    Raises:
        UserError: unknown task, engine or heuristic, an engine that this machine cannot run, or a scene that the
            engine cannot build.
    """
    task_type = task_class(cfg["task"]["name"])
    sim_cfg = {str(k): v for k, v in cfg["sim"].items()}
    engine = sim_cfg.pop("name")
    seeds = [int(s) for s in cfg.get("run_seeds") or [cfg["seed"]]]
    num_envs = int(cfg["num_envs"]) * len(seeds)
    try:
        sim = make_simulation(engine, task_type.scene(cfg["task"], engine), num_envs, cfg["device"], **sim_cfg)
    except ValueError as error:  # engines and specs know nothing of settings and users
        raise UserError("task=%s: no scene can be built on %s: %s" % (task_type.name, engine, error)) from error

    def streams(salt: int) -> Streams:
        generators = [torch.Generator(sim.device).manual_seed(seed ^ salt) for seed in seeds]
        return Streams(generators, num_envs, sim.device, sim.may_select)

    potential = task_type.find_heuristic(str(cfg["potential"])) if cfg.get("potential") else None
    if potential is not None and potential.needs_random:
        raise UserError(
            "potential=%s has a parameter %r; a potential is a function of the state" % (potential.name, RANDOM)
        )
    task = task_type(cfg["task"], sim, streams(ENV_STREAM))
    if heuristic is not None:
        task.heuristic, task.heuristic_name = heuristic, heuristic.name
    if task.heuristic.needs_random:
        task.heuristic.random = streams(HEURISTIC_STREAM)
    return TaskEnv(task, random_start, potential)


def reseed(env: TaskEnv, seed: int) -> None:
    """Let the environments of one run draw from ``seed`` on, as newly made ones of that seed do."""
    (generator,) = env.task.streams.generators
    generator.manual_seed(seed ^ ENV_STREAM)
    random = env.task.heuristic.random
    if random is not None:
        random.generators[0].manual_seed(seed ^ HEURISTIC_STREAM)


def try_functions(env: TaskEnv) -> None:
    """Call a user's own heuristic and potential once, in a step that is taken back, where they have none of ours.

    Raises:
        UserError: one of them fails, or returns something else than it has to.
    """
    if not any(":" in name for name in env.names.values()):
        return
    start = env.get_state()
    env.reset()
    env.step(torch.zeros(env.num_envs, env.num_actions, device=env.device))
    env.load_state(start)
