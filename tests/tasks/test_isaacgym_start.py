"""Every robot task's scene is the same scene on the Isaac Gym engine (on its fake) and on MuJoCo C."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from hepo_isaac.locate import robot_tasks, task_class
from hepo_isaac.overrides import compose
from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation
from tests.tasks.sampled import sampled

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))

import fake_gym  # noqa: E402

fake_gym.install()
N = 3


@pytest.fixture(scope="module", params=sampled(robot_tasks(engine="isaacgym")))
def pair(request):
    """(on Isaac Gym, on MuJoCo C)"""
    from hepo_isaac.sim.isaacgym.engine import IsaacGymSimulation

    cfg = OmegaConf.to_container(compose(["task=" + request.param]).task, resolve=True)
    task = task_class(request.param)
    return IsaacGymSimulation(task.scene(cfg, "isaacgym"), N, "cpu"), MujocoBatchSimulation(
        task.scene(cfg, "mujoco_batch"), N, threads=1
    )


def close(one, two, atol):
    torch.testing.assert_close(one, two, atol=atol, rtol=0)


def same_turn(one, two, atol):
    """q and -q are one rotation."""
    close((one * two).sum(-1).abs(), torch.ones(one.shape[:-1]), atol)


def test_names_and_limits(pair):
    gym, mujoco = pair
    assert gym.dof_names == mujoco.dof_names
    assert gym.body_names == mujoco.body_names
    assert gym.actor_names == mujoco.actor_names
    close(gym.dof_lower, mujoco.dof_lower, 1e-6)
    close(gym.dof_upper, mujoco.dof_upper, 1e-6)


def test_actors_start_in_the_same_place(pair):
    for sim in pair:
        sim.reset(torch.ones(N, dtype=torch.bool))
    gym, mujoco = pair
    close(gym.root_state[..., :3], mujoco.root_state[..., :3], 1e-6)
    same_turn(gym.root_state[..., 3:7], mujoco.root_state[..., 3:7], 1e-6)
    close(gym.body_state[..., :3], mujoco.body_state[..., :3], 1e-5)
    close(gym.dof_pos, mujoco.dof_pos, 0)


def test_links_follow_roots_and_joints_alike(pair):
    gym, mujoco = pair
    generator = torch.Generator().manual_seed(5)

    def noise(like, size):
        return size * torch.randn(like.shape, generator=generator)

    pos = (mujoco.dof_pos + noise(mujoco.dof_pos, 0.3)).clamp(mujoco.dof_lower, mujoco.dof_upper)
    vel, root = noise(pos, 1.0), mujoco.root_state + noise(mujoco.root_state, 0.5)
    root[..., 3:7] /= root[..., 3:7].norm(dim=-1, keepdim=True)
    for sim in pair:
        sim.set_state(torch.ones(N, dtype=torch.bool), dof_pos=pos, dof_vel=vel, root_state=root)
    close(gym.root_state[..., :3], mujoco.root_state[..., :3], 1e-6)
    close(gym.root_state[..., 7:], mujoco.root_state[..., 7:], 1e-5)
    close(gym.body_state[..., :3], mujoco.body_state[..., :3], 1e-5)
    same_turn(gym.body_state[..., 3:7], mujoco.body_state[..., 3:7], 1e-5)
    if gym.spec.body_velocities:
        close(gym.body_state[..., 7:], mujoco.body_state[..., 7:], 1e-4)
    else:
        assert gym.body_state[..., 7:].isnan().all()
    if gym.dof_names:
        for body in gym.body_names:
            close(gym.jacobian(body), mujoco.jacobian(body), 1e-5)


def test_where_the_importer_puts_them(pair):
    """Isaac Gym's own link poses after a step, with joints held, agree with the kinematics: none complained."""
    gym, _ = pair
    gym.reset(torch.ones(N, dtype=torch.bool))
    gym._asset_checked = False
    gym.step()
    assert gym._asset_checked
    assert not gym.bad_envs.any()
