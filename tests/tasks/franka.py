"""Shared pieces of the FrankaCabinet tests: building it on the CPU engine, and a scripted pinch-and-pull."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import mujoco
import numpy as np
import torch
from omegaconf import OmegaConf

from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import cfg_dir
from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation
from tasks.robots.franka_cabinet import DEFAULT_POSE, FrankaCabinet


def config(**physics: Any) -> Dict[str, Any]:
    """The shipped task settings as plain data, with physics changed."""
    raw = OmegaConf.load(cfg_dir() / "task" / "FrankaCabinet.yaml")
    raw.heuristic = "default"
    cfg: Any = OmegaConf.to_container(raw, resolve=True)
    task = cfg["task"]
    task["physics"].update(physics)
    return task


def make(
    num_envs: int, seed: int = 0, random_start: bool = False, heuristic: str = "default", **physics: Any
) -> TaskEnv:
    """FrankaCabinet on MuJoCo C with one thread."""
    cfg = config(**physics)
    cfg["heuristic"] = heuristic
    sim = MujocoBatchSimulation(FrankaCabinet.scene(cfg, "mujoco_batch"), num_envs, threads=1)
    generator = torch.Generator().manual_seed(seed)
    streams = Streams([generator], sim.num_envs, sim.device, sim.may_select)
    return TaskEnv(FrankaCabinet(cfg, sim, streams), random_start)


def pose(num_envs: int, robot: Tuple[float, ...] = DEFAULT_POSE, drawer: float = 0.0) -> torch.Tensor:
    """(N, 10) joint positions."""
    return torch.tensor([[*robot, drawer]]).repeat(num_envs, 1)


def place(env: TaskEnv, dof_pos: torch.Tensor, dof_vel: torch.Tensor) -> None:
    """Put every env into a state, with the drives at rest there."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool)
    env.sim.set_state(everyone, dof_pos=dof_pos, dof_vel=dof_vel, dof_target_pos=dof_pos)


# Grasp frame axes in the world for a straddling grasp: forward (z) = -x, up (y) = +z, hence x = -y.
_GRASP = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_YAW = np.array(
    [[np.cos(np.pi / 4), np.sin(np.pi / 4), 0.0], [-np.sin(np.pi / 4), np.cos(np.pi / 4), 0.0], [0, 0, 1.0]]
)


def inverse_kinematics(model: mujoco.MjModel, start: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Arm angles (7,) that bring the point between the fingertips to ``point`` with the straddling orientation."""
    data = mujoco.MjData(model)
    data.qpos[:] = start
    body = model.body("franka/link7").id
    target = _GRASP @ _YAW.T
    jacp, jacr = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for _ in range(300):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        rotation = data.xmat[body].reshape(3, 3)
        tip = data.xpos[body] + rotation @ np.array([0.0, 0.0, 0.1654 + 0.042])
        mujoco.mj_jac(model, data, jacp, jacr, tip, body)
        turn = 0.5 * sum(np.cross(rotation[:, i], target[:, i]) for i in range(3))
        error = np.concatenate((point - tip, turn))
        if np.abs(error).max() < 5e-4:
            break
        jacobian = np.vstack((jacp, jacr))[:, :7]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), error)
        data.qpos[:7] = np.clip(data.qpos[:7] + 0.3 * step, model.jnt_range[:7, 0], model.jnt_range[:7, 1])
    assert np.abs(error).max() < 2e-3, error
    return data.qpos[:7].copy()


def pinch_and_pull(env: TaskEnv, speed: float = 0.2) -> List[float]:
    """Straddle the handle, close, pull along +x at ``speed`` m/s through the action interface; returns the opening
    after every control step."""
    model, dt = env.sim.model, env.sim.spec.control_dt
    handle = np.array([0.3634, 0.0, 0.7265])  # front centre of the closed handle
    q = np.zeros(model.nq)
    q[:9] = DEFAULT_POSE
    waypoints: List[Tuple[np.ndarray, float, int]] = []

    def go(x: float, fingers: float, steps: int) -> None:
        q[:7] = inverse_kinematics(model, q, handle + [x, 0.0, 0.0])
        waypoints.append((q[:7].copy(), fingers, steps))

    go(0.10, 0.04, 150)
    go(-0.025, 0.04, 100)
    go(-0.025, 0.0, 40)
    for distance in np.arange(0.01, 0.3951, 0.01):
        go(-0.025 + distance, 0.0, max(1, round(0.01 / speed / dt)))
    go(-0.025 + 0.40, 0.0, 80)  # the arm lags its targets by kv/kp = 0.2 s
    openings = []
    scale = dt * 7.5 * torch.tensor([1.0] * 7 + [0.1] * 2)
    for arm, fingers, steps in waypoints:
        goal = torch.tensor([*arm, fingers, fingers], dtype=torch.float32)
        for _ in range(steps):
            action = (goal - env.sim.dof_target_pos[:, :9]) / scale
            env.step(action)
            openings.append(env.sim.dof_pos[0, 9].item())
    return openings


def speed_limit() -> None:
    """Print how soon the drawer can be open at all: each joint at its speed limit from start to grasp to open."""
    env = make(1)
    model, dt = env.sim.model, env.sim.spec.control_dt
    limits = np.array([2.175] * 4 + [2.61] * 3)
    start = np.zeros(model.nq)
    start[:9] = DEFAULT_POSE
    handle = np.array([0.3634, 0.0, 0.7265])
    for side in (-0.06, 0.0, 0.06):
        grasp = inverse_kinematics(model, start, handle + [-0.02, side, 0.0])
        opened = start.copy()
        opened[:7] = grasp
        opened = inverse_kinematics(model, opened, handle + [0.37, side, 0.0])
        approach = (np.abs(grasp - start[:7]) / limits).max() / dt
        pull = (np.abs(opened - grasp) / limits).max() / dt
        print(
            "grasp %+.2f m from the handle's centre: approach >= %.0f, pull >= %.0f control steps, so J <= %.3f"
            % (side, approach, pull, 1.0 - (approach + pull) / env.max_episode_length)
        )


if __name__ == "__main__":
    speed_limit()
