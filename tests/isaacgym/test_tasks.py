"""Every robot task builds and steps on the Isaac Gym engine, with its own PhysX settings."""

from __future__ import annotations

import fake_gym
import pytest
import torch
from omegaconf import OmegaConf

from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.task import for_engine
from hepo_isaac.errors import UserError
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose
from tests.tasks.sampled import CHOSEN, sampled

fake_gym.install()
N = 6


def environments(name, **changes):
    cfg = OmegaConf.to_container(compose(["task=" + name]), resolve=True)
    cfg.update(num_envs=N, seed=3, device="cpu", sim={"name": "isaacgym"}, **changes)
    return make_env(cfg)


@pytest.mark.parametrize("name", sampled(robot_tasks(engine="isaacgym")))
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


# The state of one dexterous task is that of another: one in the default run.
@pytest.mark.parametrize("name", sampled(robot_tasks(engine="isaacgym"), CHOSEN[-1:]))
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


def test_what_differs_between_engines_is_in_the_tasks_file():
    values = {"mujoco": 1, "isaacgym": 2}
    assert [for_engine(values, name) for name in ("mujoco_batch", "mujoco_warp", "isaacgym")] == [1, 1, 2]
    with pytest.raises(UserError, match="no settings for sim=analytic, only for: mujoco, isaacgym"):
        for_engine(values, "analytic")


def test_the_arm_leaves_its_speed_limit_to_physx():
    """On MuJoCo the task holds joints at their limit, for which a torque may be larger than the motor's."""
    env = environments("FrankaCubeStack")
    env.reset()
    everyone = torch.ones(N, dtype=torch.bool)
    fast = torch.full_like(env.sim.dof_vel, 20.0)  # rad/s, far beyond the Panda's 2.6
    env.sim.set_state(everyone, dof_vel=fast)
    env.task.apply(torch.zeros(N, env.num_actions))
    limits = torch.tensor([87.0] * 4 + [12.0] * 3)
    assert (env.sim._effort[:, :7].abs() <= limits + 1e-4).all()
    props = env.sim.scene.actors[0].props
    assert list(props["effort"][:7]) == pytest.approx(limits.tolist())
    assert list(props["velocity"][:7]) == pytest.approx([2.175] * 4 + [2.61] * 3)
    env.close()


# Of PhysX's shapes, as published; where nothing is said it is 1.
FRICTION = {
    "ShadowHandDoorOpenOutward": {"right": 1.0, "left": 1.0, "door": 0.1},
    "ShadowHandBlockStack": {"right": 0.5, "left": 0.5, "table": 0.2, "right_cube": 0.25, "left_cube": 0.25},
}


@pytest.mark.parametrize("name", sorted(FRICTION))
def test_floating_hands_are_physx_s_to_slow(name):
    """Its links are damped as published, so that the task's own drag stays off, and a push is sent whole."""
    env = environments(name)
    env.reset()
    gym, scene = env.sim.gym, env.sim.scene
    frame, handles = scene.envs[0]
    found = {}
    for actor, handle in zip(scene.actors, handles):
        damping = [actor.settings.asset.get(kind) for kind in ("linear_damping", "angular_damping")]
        assert damping == ([100.0, 100.0] if actor.spec.name in ("right", "left") else [None, None])
        (found[actor.spec.name],) = {s.friction for s in gym.get_actor_rigid_shape_properties(frame, handle)}
    assert found == pytest.approx(FRICTION[name])
    env.sim.body_state[..., 7:] = 1.0  # of hands that move, which a drag would brake
    moves = torch.zeros(N, 52)
    moves[:, 26:29] = torch.tensor([1.0, -0.5, 0.0])
    pushes = []
    env.sim.apply_body_force = lambda force, torque: pushes.append((force.clone(), torque.clone()))
    env.task.apply(moves)
    ((force, torque),) = pushes
    left = env.sim.body_index("left/forearm")
    share = env.task.record.floating[0]
    torch.testing.assert_close(force[:, left], 1667.0 * share * moves[:, 26:29])
    force[:, left] = 0.0
    assert not force.any() and not torque.any()
    env.close()
