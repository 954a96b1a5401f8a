"""The physics that decides whether FrankaCabinet can be learned: end stop, drives, grasp."""

from __future__ import annotations

import pytest
import torch

from tests.tasks.franka import make, pinch_and_pull, place, pose

# Folded away from the cabinet: at the start pose the hand is in the sliding drawer's way.
PARKED = (2.5, -1.5, 0.0, -2.5, 0.0, 1.0, 0.4, 0.04, 0.04)


def _slide(env, speeds):
    """Let the drawer go at 0.3 m with each speed; final openings."""
    velocity = torch.zeros(env.num_envs, 10)
    velocity[:, 9] = torch.tensor(speeds)
    place(env, pose(env.num_envs, PARKED, 0.3), velocity)
    for _ in range(240):
        env.sim.step()
    return env.sim.dof_pos[:, 9].tolist()


@pytest.mark.parametrize("substeps", [2, 4])
def test_drawer_stays_open_after_hitting_its_stop(substeps):
    final = _slide(make(3, substeps=substeps), [0.3, 0.6, 1.0])
    assert min(final) >= 0.399, final
    assert max(final) <= 0.402, final


def test_the_default_stop_throws_the_drawer_back():
    """What the inelastic stop is for: without it every slide ends below the success threshold of 0.39."""
    assert max(_slide(make(3, inelastic_stop=False), [0.3, 0.6, 1.0])) < 0.39


def test_drawer_coasts_against_its_damper():
    """m v' = -c v: from 0.1 m/s the drawer coasts v m / c = 0.0861 m with m = 8.6068 + 0.005, c = 10."""
    env = make(1)
    velocity = torch.zeros(1, 10)
    velocity[:, 9] = 0.1
    place(env, pose(1, PARKED, 0.1), velocity)
    for _ in range(600):
        env.sim.step()
    mass = 5.33 + 16 * 0.2048 + 0.005
    assert env.sim.dof_pos[0, 9].item() - 0.1 == pytest.approx(0.1 * mass / 10.0, rel=0.01)


@pytest.mark.parametrize("substeps", [2, 4])
def test_scripted_pinch_and_pull_opens_the_drawer(substeps):
    env = make(1, substeps=substeps)
    env.reset()
    place(env, pose(1), torch.zeros(1, 10))
    openings = pinch_and_pull(env)
    grip = env.sim.dof_pos[0, 7:9]
    assert openings[-1] >= 0.395, openings[-1]
    # Gripped, not hooked: the fingers stop on the handle, whose half height is 12.15 mm.
    assert 0.010 < grip.min().item() and grip.max().item() < 0.0135, grip


def test_arm_drive_respects_the_joint_speed_limit():
    """Alone in the air a drive never moves its joint faster than the datasheet's 2.175 / 2.61 rad/s."""
    env = make(1)
    place(env, pose(1, PARKED), torch.zeros(1, 10))
    fastest = torch.zeros(7)
    for _ in range(25):
        env.step(torch.tensor([[-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]))
        fastest = torch.maximum(fastest, env.sim.dof_vel[0, :7].abs())
    limits = torch.tensor([2.175] * 4 + [2.61] * 3)
    assert (fastest[[0, 3, 4, 6]] > 0.5 * limits[[0, 3, 4, 6]]).all(), fastest
    assert (fastest < 1.1 * limits).all(), fastest


def test_finger_stall_force_is_finite():
    """Closed on the handle the fingers push with kp times the bounded error, about 29 N, not the drive's 200 N."""
    env = make(1)
    env.reset()
    place(env, pose(1), torch.zeros(1, 10))
    pinch_and_pull(env)
    assert 20.0 < env.sim.dof_force[0, 7:9].abs().max().item() < 40.0


def test_sixteen_loose_props_rest_in_the_drawer_and_ride_along():
    env = make(2, num_props=16)
    env.reset()
    start = env.sim.root_state[:, 2:, :3].clone()
    for _ in range(30):
        env.sim.step()
    resting = env.sim.root_state[:, 2:, :3]
    assert (resting - start).abs().max().item() < 2e-3
    velocity = torch.zeros(2, 10)
    velocity[:, 9] = 0.2
    everyone = torch.ones(2, dtype=torch.bool)
    parked = pose(2, PARKED)
    env.sim.set_state(everyone, dof_pos=parked, dof_vel=velocity, dof_target_pos=parked)
    for _ in range(60):
        env.sim.step()
    moved = env.sim.dof_pos[:, 9]
    carried = env.sim.root_state[:, 2:, 0] - start[:, :, 0]
    assert moved.min().item() > 0.05
    assert (carried.mean(1) - moved).abs().max().item() < 0.03
    assert not bool(env.sim.bad_envs.any())


def test_a_reset_puts_loose_props_back():
    env = make(2, num_props=16)
    env.reset()
    grid = env.sim.root_state[:, 2:].clone()
    for _ in range(5):
        env.sim.step()
    root = env.sim.root_state.clone()
    root[:, 2:, 2] += 0.3
    env.sim.set_state(torch.tensor([True, True]), root_state=root)
    env.task.reset(torch.tensor([True, False]))
    torch.testing.assert_close(env.sim.root_state[0, 2:], grid[0], rtol=0, atol=1e-5)
    assert (env.sim.root_state[1, 2:, 2] - grid[1, :, 2]).min().item() > 0.25
