"""What a trained policy does beyond its returns: the figures of the hands' and FrankaCubeStack's pages.

    python -m hepo_isaac.studies.policy_probes goals <run folder> --episodes 512   # goals, also with a neighbour's
    python -m hepo_isaac.studies.policy_probes grip <run folder> --episodes 128    # finger gap and height of the cube

Actions are sampled, as in training; the last checkpoint is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Tuple

import torch

from hepo_isaac.agents.player import HepoPlayer
from hepo_isaac.agents.register import runner_params
from hepo_isaac.config import plain
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.math import quat_conjugate, quat_mul
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import tasks_module
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.stored import read_run
from hepo_isaac.sim.engines import CPU_ENGINE


def load(run: Path, num_envs: int) -> Tuple[TaskEnv, HepoPlayer]:
    """Environments on MuJoCo C that start their episodes, and the run's first policy."""
    folder = RunFolder.open(run)
    cfg = plain(read_run(folder.path))
    cfg.update(num_envs=num_envs, seed=4321, device="cpu", sim={"name": CPU_ENGINE, "threads": 1})
    env = make_env(cfg, random_start=False)
    params = runner_params(cfg, [1])
    params["config"]["player"] = {"episodes": 1, "deterministic": False, "policy": "pi", "record": False}
    player = HepoPlayer(params, RlGamesVecEnv(env))
    player.set_weights(load_checkpoint(folder.path / "checkpoints" / "last.pt")["agent"])
    return env, player


def neighbours_goal(env: TaskEnv, obs: torch.Tensor) -> torch.Tensor:
    """The observations (N, O), but of the goal that the next environment has: what motion alone reaches."""
    task: Any = env.task
    one_sign = tasks_module("robots.in_hand").with_positive_w
    goal = task.goal.roll(1, 0)
    relative = quat_mul(task.sim.root_state[:, task.object_row, 3:7], quat_conjugate(goal[:, 3:]))
    shown, column = obs.clone(), 0
    parts = task.parts({"observe_joint_force": True, "observe_one_sign": True})
    for name in task.observation_types["full_state"]:
        width = parts[name].read().shape[1]
        for changed, value in (
            ("goal_pose", goal),
            ("relative_quat", one_sign(relative)),
        ):
            if name == changed:
                shown[:, column : column + width] = value
        column += width
    return shown


@torch.no_grad()
def goals(run: Path, episodes: int, neighbour: bool) -> None:
    """Goals of every environment's first episode."""
    env, player = load(run, episodes)
    obs, over = env.reset(), torch.zeros(episodes, dtype=torch.bool)
    found = torch.zeros(episodes)
    while not over.all():
        result = env.step(player.act(neighbours_goal(env, obs) if neighbour else obs))
        ended = result.done & ~over
        found[ended] = result.metrics[ended, result.metric_names.index("goals")].float()
        over, obs = over | result.done, result.obs
    whose = "the neighbour's goal shown" if neighbour else "its own goal"
    error = found.std() / episodes**0.5
    counts = torch.bincount(found.long()).tolist()
    print("%s: %.3f ± %.3f goals per episode, episodes by goals %s" % (whose, found.mean(), error, counts))


@torch.no_grad()
def grip(run: Path, episodes: int) -> None:
    """How far the fingers are apart after 100 steps, and how high the cube's centre gets above its start."""
    env, player = load(run, episodes)
    obs, gap, height = env.reset(), [], []
    task: Any = env.task
    for _ in range(env.max_episode_length - 1):
        obs = env.step(player.act(obs)).obs
        state = task.state()
        gap.append(state.finger_pos.sum(1).clone())
        height.append(state.cube_a_pos[:, 2].clone())
    late, lift = torch.stack(gap)[100:], torch.stack(height) - height[0]
    held = ((late > 0.047) & (late < 0.053)).float().mean()
    most = lift.amax(0).quantile(torch.tensor([0.5, 0.9, 1.0]))
    print("gap of 47 to 53 mm: %.3f of the steps; lift, median, 90 %%, most: %s cm" % (held, (100 * most).tolist()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", choices=["goals", "grip"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.probe == "grip":
        grip(args.run, args.episodes)
        return
    for neighbour in (False, True):
        goals(args.run, args.episodes, neighbour)


if __name__ == "__main__":
    main()
