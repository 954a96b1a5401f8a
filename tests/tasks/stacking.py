"""A scripted pick-and-place for FrankaCubeStack through its action interface: shared by tests and measurements."""

from __future__ import annotations

import math
from typing import Dict, List

import torch
from torch import Tensor

from hepo_isaac.envs.math import quat_conjugate, quat_mul, quat_rotate
from hepo_isaac.envs.task_env import TaskEnv
from tasks.robots.franka_cube_stack import COMMAND_SCALE, SIZE_A, SIZE_B, FrankaCubeStack

DOWN = (1.0, 0.0, 0.0, 0.0)  # the hand pointing down, its y axis along -y of the world
OPEN, CLOSED = 1.0, -1.0


def hand_command(task: FrankaCubeStack, place: Tensor, yaw: Tensor, grip: float, gain: float = 5.0) -> Tensor:
    """Actions (N, 7) that bring the grip site to ``place`` (N, 3) m, pointing down, turned by ``yaw`` (N,) rad.

    The hand settles at gain K_d / K_p of the error's rate: a command of K_d / K_p rate is a velocity.
    """
    state, link = task.state(), task.sim.body_state[:, 0]
    quat = quat_mul(link[:, 3:7], task._hand_yaw)
    turn = torch.zeros_like(quat)
    turn[:, 2], turn[:, 3] = torch.sin(yaw / 2), torch.cos(yaw / 2)
    error = quat_mul(quat_mul(turn, torch.tensor(DOWN).expand_as(quat)), quat_conjugate(quat))
    rotation = 2.0 * error[:, :3] * error[:, 3:].sign()
    rate = torch.cat((place - state.grip_pos, rotation), 1) * gain
    command = rate / (math.sqrt(150.0) / 2.0) / torch.tensor(COMMAND_SCALE)
    return torch.cat((command, torch.full((len(command), 1), grip)), 1).clamp(-1.0, 1.0)


def cube_yaw(quat: Tensor) -> Tensor:
    """Yaw (N,) of a cube modulo a quarter turn, in [-pi/4, pi/4)."""
    x = quat_rotate(quat, torch.tensor([1.0, 0.0, 0.0]).expand(len(quat), 3))
    yaw = torch.atan2(x[:, 1], x[:, 0])
    return torch.remainder(yaw + math.pi / 4, math.pi / 2) - math.pi / 4


def pick_and_place(env: TaskEnv) -> List[Dict[str, Tensor]]:
    """Grasp A, lift it, put it on B, let go and retreat, in every env at once; what each control step led to."""
    task: FrankaCubeStack = env.task  # type: ignore[assignment]
    start = task.state()
    yaw_a, yaw_b = cube_yaw(start.cube_a_quat), cube_yaw(start.cube_b_quat)
    up = torch.tensor([0.0, 0.0, 1.0])
    seen: List[Dict[str, Tensor]] = []

    def go(steps: int, grip: float, where: str, above: float, yaw: Tensor) -> None:
        fixed = {"a": start.cube_a_pos.clone(), "b": start.cube_b_pos.clone()}[where]
        for _ in range(steps):
            result = env.step(hand_command(task, fixed + above * up, yaw, grip))
            state = task.state()
            keep = {"a": state.cube_a_pos, "b": state.cube_b_pos, "grip": state.grip_pos, "fingers": state.finger_pos}
            seen.append({k: v.clone() for k, v in keep.items()})
            seen[-1].update(r=result.rewards[:, 0].clone(), h=result.rewards[:, 1].clone(), bad=result.bad.clone())
            seen[-1]["force"] = task.sim.dof_force.clone()

    stack = SIZE_B / 2 + SIZE_A / 2
    go(50, OPEN, "a", 0.12, yaw_a)
    go(40, OPEN, "a", 0.0, yaw_a)
    go(20, CLOSED, "a", 0.0, yaw_a)
    go(40, CLOSED, "a", 0.15, yaw_a)
    go(50, CLOSED, "b", stack + 0.06, yaw_b)
    go(40, CLOSED, "b", stack + 0.002, yaw_b)
    go(15, OPEN, "b", stack + 0.002, yaw_b)
    go(43, OPEN, "b", stack + 0.12, yaw_b)
    return seen
