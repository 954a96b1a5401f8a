"""Every robot task builds and steps on the Isaac Gym engine, with its own PhysX settings."""

from __future__ import annotations

import fake_gym
import pytest
import torch
from omegaconf import OmegaConf

from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose

fake_gym.install()
N = 6


def environments(name, **changes):
    cfg = OmegaConf.to_container(compose(["task=" + name]), resolve=True)
    cfg.update(num_envs=N, seed=3, device="cpu", sim={"name": "isaacgym"}, **changes)
    return make_env(cfg)


@pytest.mark.parametrize("name", robot_tasks())
def test_every_task_builds_and_steps(name):
    env = environments(name)
    obs = env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        result = env.step(2.0 * torch.rand(N, env.num_actions, generator=generator) - 1.0)
        for tensor in (result.obs, result.rewards, result.terms, result.final_obs):
            assert tensor.isfinite().all()
    assert obs.shape == result.obs.shape == (N, env.num_obs)
    assert int(env.bad_count) == 0
    everyone = torch.ones(N, dtype=torch.bool)
    env.task.reset(everyone)  # episodes end and begin
    env.step(torch.zeros(N, env.num_actions))
    assert env.sim.body_state[..., :7].isfinite().all()
    env.close()


@pytest.mark.parametrize("name", robot_tasks())
def test_episodes_go_on_after_a_checkpoint(name):
    """The fake has no memory besides its state, so the continuation is exact."""
    env = environments(name)
    env.reset()
    moves = 2.0 * torch.rand(12, N, env.num_actions, generator=torch.Generator().manual_seed(1)) - 1.0
    for move in moves[:6]:
        env.step(move)
    saved = env.get_state()
    first = [env.step(move) for move in moves[6:]]
    again = environments(name)
    again.reset()
    again.load_state(saved)
    second = [again.step(move) for move in moves[6:]]
    for one, two in zip(first, second):
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.rewards, two.rewards)
    env.close()
    again.close()
