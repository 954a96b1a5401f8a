"""Cartpole's formulas and start against an independent restatement, its motion against the closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from tasks.robots.cartpole import CartpoleState, default_heuristic, out_of_bounds, task_reward
from tests.kolmogorov import ONE_PERCENT, uniform_statistic
from tests.tasks.robots import make

DT = 0.0166
G, CART, POLE, ARM = 9.81, 1.0, 1.0, 0.47  # m/s^2, kg, kg, m from the pivot to the pole's middle
INERTIA = (0.06**2 + 1.0**2) / 12  # kg m^2 of the pole about its middle


@pytest.fixture(scope="module")
def env():
    return make("Cartpole", 4)


def place(env, x, v, angle, spin):
    """Put every env into one state."""
    everyone = torch.ones(env.num_envs, dtype=torch.bool)
    pos, vel = torch.tensor([[x, angle]]), torch.tensor([[v, spin]])
    env.sim.set_state(everyone, pos.repeat(env.num_envs, 1), vel.repeat(env.num_envs, 1))


# ---- rewards ---------------------------------------------------------------------------------------------------------


def random_state(n=2000, seed=0):
    """States around the bounds, so that about half are outside."""
    x, v, angle, spin = torch.randn(4, n, generator=torch.Generator().manual_seed(seed))
    return CartpoleState(4.0 * x, 5.0 * v, 2.0 * angle, 8.0 * spin)


def restated(x, v, angle, spin):
    """The published reward for one env."""
    if abs(x) > 3 or abs(angle) > np.pi / 2:
        return -2.0
    return 1.0 - angle**2 - 0.01 * abs(v) - 0.005 * abs(spin)


def test_default_heuristic_equals_its_restatement():
    s = random_state()
    rows = zip(*(f.double().numpy() for f in (s.cart_pos, s.cart_vel, s.pole_angle, s.pole_vel)))
    expected = np.array([restated(*row) for row in rows])
    assert 0.2 < (expected == -2.0).mean() < 0.8
    got = torch.stack(list(default_heuristic(s).values())).sum(0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_heuristic_by_hand():
    s = CartpoleState(*torch.tensor([[1.0, 3.1], [2.0, 0.0], [-0.5, 0.0], [-4.0, 0.0]]))
    terms = default_heuristic(s)
    assert {k: round(v[0].item(), 6) for k, v in terms.items()} == {
        "upright": 0.75,
        "cart_speed": -0.02,
        "pole_speed": -0.02,
        "out_of_bounds": 0.0,
    }
    assert sum(terms.values()).tolist() == pytest.approx([0.71, -2.0])


def test_bounds_belong_to_the_inside():
    half = math.pi / 2
    below = torch.nextafter(torch.tensor(half), torch.tensor(0.0)).item()
    x = torch.tensor([3.0, -3.0, 3.0001, -3.0001, 0.0, 0.0, 0.0])
    angle = torch.tensor([0.0, 0.0, 0.0, 0.0, below, half + 1e-3, -half - 1e-3])
    got = out_of_bounds(CartpoleState(x, torch.zeros(7), angle, torch.zeros(7)))
    assert got.tolist() == [False, False, True, True, False, True, True]


def test_task_reward_is_the_share_of_the_episode_survived():
    got = task_reward(torch.tensor([False, True]), 499)
    assert got.tolist() == pytest.approx([1 / 499, 0.0])
    env = make("Cartpole", 1)
    env.reset()
    place(env, 0.0, 0.0, 0.0, 0.0)
    results = [env.step(torch.zeros(1, 1)) for _ in range(499)]  # exactly upright is an equilibrium
    assert sum(r.rewards[0, 0].item() for r in results) == pytest.approx(1.0, abs=1e-5)
    assert [r.done.item() for r in results] == [False] * 498 + [True]
    assert results[-1].time_out.item() and not results[-1].terminated.item()
    assert results[-1].metrics[0, 0].item() == 1.0


@pytest.mark.parametrize("x, v, angle, spin", [(2.99, 5.0, 0.0, 0.0), (0.0, 0.0, 1.56, 5.0), (0.0, 0.0, -1.56, -5.0)])
def test_leaving_the_bounds_ends_the_episode(env, x, v, angle, spin):
    env.reset()
    place(env, x, v, angle, spin)
    result = env.step(torch.zeros(4, 1))
    assert result.terminated.all() and not result.time_out.any()
    assert result.rewards[0].tolist() == pytest.approx([0.0, -2.0])
    assert (result.metrics == 0.0).all()
    assert not (result.obs == result.final_obs).all(1).any() and result.obs[:, [0, 2]].abs().max() <= 0.1


def test_unknown_heuristic():
    with pytest.raises(UserError, match="unknown heuristic of Cartpole 'dflt': did you mean 'default'"):
        make("Cartpole", 1, "heuristic=dflt")


# ---- observations, actions and resets --------------------------------------------------------------------------------


def test_observation_layout(env):
    env.reset()
    place(env, 0.1, -0.2, 0.3, 7.0)
    assert env.task.observe()[2].tolist() == pytest.approx([0.1, -0.2, 0.3, 7.0])
    assert env.observe()[2].tolist() == pytest.approx([0.1, -0.2, 0.3, 5.0])  # clipped to 5


def test_start_is_uniform():
    """Kolmogorov-Smirnov on 10,000 starts, 1 % level."""
    env = make("Cartpole", 500)
    obs = torch.cat([env.reset() for _ in range(20)])
    assert uniform_statistic(obs / torch.tensor([0.1, 0.25, 0.1, 0.25]) / 2 + 0.5) < ONE_PERCENT
    assert (torch.corrcoef(obs.T) - torch.eye(4)).abs().max().item() < 0.05


# ---- motion ----------------------------------------------------------------------------------------------------------


def acceleration(q, v, force):
    """Cart and pole accelerations; a positive angle turns the pole's top towards -y.

    From the Lagrangian with the pole's middle at (x - l sin θ, l cos θ):
        (M + m) x'' - m l cos θ θ'' + m l sin θ θ'² = F,   (I + m l²) θ'' - m l cos θ x'' = m g l sin θ.
    """
    c, s = math.cos(q[1]), math.sin(q[1])
    mass = np.array([[CART + POLE, -POLE * ARM * c], [-POLE * ARM * c, INERTIA + POLE * ARM**2]])
    load = np.array([force - POLE * ARM * s * v[1] ** 2, POLE * G * ARM * s])
    return np.linalg.solve(mass, load)


def euler(q, v, force, h, steps):
    """Semi-implicit Euler: the velocity first, then the position with it."""
    for _ in range(steps):
        v = v + h * acceleration(q, v, force)
        q = q + h * v
    return q, v


def runge_kutta(q, v, force, h, steps):
    """Classical fourth order."""

    def slope(y):
        return np.concatenate((y[2:], acceleration(y[:2], y[2:], force)))

    y = np.concatenate((q, v))
    for _ in range(steps):
        a = slope(y)
        b = slope(y + h / 2 * a)
        c = slope(y + h / 2 * b)
        y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c))
    return y[:2], y[2:]


@pytest.mark.parametrize("amplitude", [0.01, 0.5])
def test_motion_is_the_closed_form_of_a_cart_pole(env, amplitude):
    """Twelve steps with varying force, from a spinning start, against the integrator's rule on the closed form."""
    env.reset()
    place(env, 0.5, -1.0, 0.4, 2.0)
    q, v = np.array([0.5, 0.4]), np.array([-1.0, 2.0])
    for action in amplitude * np.sin(np.arange(12)):
        action = np.float32(action)
        env.task.apply(torch.full((4, 1), float(action)))
        env.sim.step()
        q, v = euler(q, v, 400.0 * float(action), DT / 2, 2)
        np.testing.assert_allclose(env.sim.dof_pos[1].numpy(), q, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(env.sim.dof_vel[1].numpy(), v, rtol=2e-5, atol=2e-5)


def test_finer_steps_approach_the_exact_motion():
    """A pole falling from 0.1 rad for half a second: the error is of first order, and 0.01 rad as shipped."""
    exact = runge_kutta(np.array([0.0, 0.1]), np.zeros(2), 0.0, DT / 20, 20 * 30)[0]
    assert 0.5 < exact[1] < 1.5
    errors = []
    for substeps in (2, 4, 8):
        env = make("Cartpole", 1, "task.physics.substeps=%d" % substeps)
        env.reset()
        place(env, 0.0, 0.0, 0.1, 0.0)
        env.task.apply(torch.zeros(1, 1))
        for _ in range(30):
            env.sim.step()
        errors.append(np.abs(env.sim.dof_pos[0].numpy() - exact).max())
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.2) and errors[1] / errors[2] == pytest.approx(2.0, rel=0.2)


def test_mirrored_pushes_move_it_mirrored(env):
    env.reset()
    place(env, 0.3, 0.5, 0.2, -0.4)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).unsqueeze(1)
    everyone = torch.ones(4, dtype=torch.bool)
    env.sim.set_state(everyone, signs * env.sim.dof_pos, signs * env.sim.dof_vel)
    for k in range(8):
        result = env.step(signs * 0.2 * math.cos(k))
    torch.testing.assert_close(result.obs[0], -result.obs[1])
    torch.testing.assert_close(result.rewards[0], result.rewards[1])


def test_the_scene_weighs_two_kilograms_and_touches_nothing(env):
    model = env.sim.model
    assert model.body_mass.sum() == pytest.approx(2.0) and model.ngeom == 0
    assert env.sim.dof_lower[0].item() == -4.0 and env.sim.dof_upper[0].item() == 4.0
    assert env.sim.body_state[0, 0, :3].tolist() == pytest.approx([0.12, env.sim.dof_pos[0, 0].item(), 2.0])


def balance(state):
    """A hand-set state feedback, in actions."""
    x, v, angle, spin = state.unbind(1)
    return ((5.0 * x + 8.0 * v - 80.0 * angle - 16.0 * spin) / 400.0).unsqueeze(1)


def test_a_state_feedback_survives_every_episode():
    """So J = 1 can be reached from every start."""
    env = make("Cartpole", 16)
    obs, total = env.reset(), torch.zeros(16)
    for _ in range(499):
        result = env.step(balance(obs))
        obs, total = result.obs, total + result.rewards[:, 0]
    assert result.time_out.all()
    assert total.tolist() == pytest.approx([1.0] * 16, abs=1e-4)
