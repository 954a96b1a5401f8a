"""FrankaCabinet on MuJoCo Warp (on the CPU) against MuJoCo C, and without a host read. Kernels compile for minutes."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from tasks.robots.franka_cabinet import FrankaCabinet
from tests.host_reads import HostReads
from tests.tasks.franka import config, make

pytestmark = pytest.mark.slow
pytest.importorskip("mujoco_warp")


def make_warp(num_envs, **physics):
    from hepo_isaac.sim.mujoco.warp import MujocoWarpSimulation

    cfg = config(**physics)
    sim = MujocoWarpSimulation(FrankaCabinet.scene(cfg, "mujoco_warp"), num_envs, device="cpu")
    generator = torch.Generator().manual_seed(0)
    streams = Streams([generator], sim.num_envs, sim.device, sim.may_select)
    return TaskEnv(FrankaCabinet(cfg, sim, streams), random_start=False)


@pytest.mark.parametrize("num_props", [0, 16])
def test_same_actions_same_observations_and_rewards(num_props):
    warp, reference = make_warp(8, num_props=num_props), make(8, num_props=num_props)
    reference.reset()
    warp.reset()
    start = reference.sim.dof_pos.clone()
    for env in (warp, reference):
        env.sim.set_state(torch.ones(8, dtype=torch.bool), start, torch.zeros_like(start), dof_target_pos=start)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        actions = 2.0 * torch.rand(8, 9, generator=generator) - 1.0
        a, b = warp.step(actions), reference.step(actions)
        torch.testing.assert_close(a.obs, b.obs, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.rewards, b.rewards, rtol=0, atol=1e-4)
        torch.testing.assert_close(warp.sim.root_state[..., :7], reference.sim.root_state[..., :7], rtol=0, atol=1e-4)
    assert warp.sim.overflow_count.item() == 0 and warp.bad_count.item() == 0


def test_a_step_with_resets_reads_nothing_on_the_host():
    env = make_warp(8)
    env.reset()
    env.progress[:4] = env.max_episode_length - 1
    actions = torch.zeros(8, 9)
    with HostReads() as reads:
        result = env.step(actions)
    assert reads.found == []
    assert result.time_out.tolist() == [True] * 4 + [False] * 4
