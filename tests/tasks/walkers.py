"""Shared pieces of the Ant and Humanoid tests: any state of the robot, and a textbook restatement of its geometry."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from hepo_isaac.envs.task_env import TaskEnv
from tests.tasks.robots import actions, make

DT = 0.0166


def everyone(env: TaskEnv) -> torch.Tensor:
    """(N,) all true."""
    return torch.ones(env.num_envs, dtype=torch.bool)


def put(env: TaskEnv, q: Any = None, qd: Any = None, **root: Any) -> None:
    """Put every env into a state: joints q and speeds qd (default: start pose at rest), root as changed by pos, quat
    (xyzw), lin and ang (world frame)."""
    sim = env.sim
    state = env.task._start_root.clone()
    for name, columns in (("pos", slice(3)), ("quat", slice(3, 7)), ("lin", slice(7, 10)), ("ang", slice(10, 13))):
        if name in root:
            state[:, 0, columns] = torch.as_tensor(root[name], dtype=torch.float32)
    q = env.task._middle if q is None else q
    qd = torch.zeros(env.num_actions) if qd is None else qd
    shape = (env.num_envs, env.num_actions)
    sim.set_state(everyone(env), torch.as_tensor(q).expand(shape), torch.as_tensor(qd).expand(shape), root_state=state)


def scatter(env: TaskEnv, seed: int = 0) -> None:
    """Random poses, velocities and joints, high above the ground."""
    g = torch.Generator().manual_seed(seed)
    n, k = env.num_envs, env.num_actions
    quat = torch.randn(n, 4, generator=g)
    low, high = env.sim.dof_lower, env.sim.dof_upper
    put(
        env,
        low + (high - low) * torch.rand(n, k, generator=g),
        4.0 * torch.randn(n, k, generator=g),
        pos=torch.tensor([0.0, 0.0, 5.0]) + torch.randn(n, 3, generator=g),
        quat=quat / quat.norm(dim=1, keepdim=True),
        lin=2.0 * torch.randn(n, 3, generator=g),
        ang=2.0 * torch.randn(n, 3, generator=g),
    )


def turned(yaw: float) -> torch.Tensor:
    """Quaternion (xyzw) of a turn about the vertical."""
    return torch.tensor([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])


def geometry(root: np.ndarray) -> Dict[str, Any]:
    """The published quantities of one root state (13,), in float64: pieces of observation and heuristic."""
    x, y, z, w = root[3:7]
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    to_target = np.array([1000.0 - root[0], -root[1]])
    yaw = math.atan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z) % (2 * math.pi)
    return {
        "velocity": rotation.T @ root[7:10],
        "spin": rotation.T @ root[10:13],
        "up": rotation[2, 2],
        "heading": rotation[:2, 0] @ to_target / np.linalg.norm(to_target),
        "yaw": yaw,
        "roll": math.atan2(2 * (w * x + y * z), w * w - x * x - y * y + z * z) % (2 * math.pi),
        "to_target": math.atan2(0.0 - root[2], to_target[0]) - yaw,
    }


def speed_to_target(before: np.ndarray, after: np.ndarray) -> float:
    """Published: difference of the potentials -distance / dt."""
    target = np.array([1000.0, 0.0])
    return (np.linalg.norm(target - before[:2]) - np.linalg.norm(target - after[:2])) / DT


def ranges(env: TaskEnv, q: np.ndarray) -> np.ndarray:
    """Joint angles in their ranges, -1 to 1."""
    low, high = env.sim.dof_lower.double().numpy(), env.sim.dof_upper.double().numpy()
    return (2 * q - high - low) / (high - low)


def steps_from_anywhere(env: TaskEnv, low: float) -> Tuple[List[Tuple[np.ndarray, ...]], torch.Tensor]:
    """One control step from each of many states, half of them tumbling, half upright and every fourth of those ``low``.

    Returns:
        Rows (root before, root, joints in their ranges, joint speeds, actions) in float64, and h of each.
    """
    rows: List[Tuple[np.ndarray, ...]] = []
    values = []
    for seed in range(6):
        scatter(env, seed)
        if seed % 2:
            roots = env.sim.root_state.clone()
            roots[:, 0, 3:6] *= 0.1
            roots[:, 0, 3:7] /= roots[:, 0, 3:7].norm(dim=1, keepdim=True)
            roots[::4, 0, 2] = low
            env.sim.set_state(everyone(env), root_state=roots)
        before = env.sim.root_state[:, 0].double().numpy()
        move = actions(env, seed, 1)[0]
        env.task.apply(move)
        env.sim.step()
        values.append(env.task.rewards().heuristic)
        columns = (env.sim.root_state[:, 0], env.sim.dof_pos, env.sim.dof_vel, move)
        root, q, qd, a = (x.double().numpy() for x in columns)
        rows += list(zip(before, root, ranges(env, q), qd, a))
    return rows, torch.cat(values)


def restated_motion(before: np.ndarray, root: np.ndarray) -> float:
    """What h pays both robots for moving: progress, being upright and heading for the target."""
    g = geometry(root)
    upright = 0.1 if g["up"] > 0.93 else 0.0
    return speed_to_target(before, root) + upright + (0.5 if g["heading"] > 0.8 else 0.5 * g["heading"] / 0.8)


def resets(task: str, times: int, num_envs: int = 500) -> Dict[str, torch.Tensor]:
    """Joint states after many resets, (times * num_envs, K)."""
    env = make(task, num_envs)
    q, qd = [], []
    for _ in range(times):
        env.reset()
        q.append(env.sim.dof_pos.clone())
        qd.append(env.sim.dof_vel.clone())
    env.close()
    return {"q": torch.cat(q), "qd": torch.cat(qd)}
