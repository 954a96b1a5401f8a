"""Every task of the analytic suite: its optimum is reached and not exceeded, its random score, its step contract."""

from __future__ import annotations

import io
import math

import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class
from tests.tasks.suite import OPTIMAL, SUITE, config, make, returns, score

GROUPS = {"aligned": 4, "imperfect": 4, "deceptive": 4}
ONE_STEP = ("TwoArm", "QuadraticPoint")
every_task = pytest.mark.parametrize("name", SUITE)


def noise(env, seed=1000):
    """The untrained policy: standard normal actions, which TaskEnv clamps."""
    g = torch.Generator().manual_seed(seed)
    return lambda state: torch.randn(env.num_envs, env.num_actions, generator=g)


def test_the_suite_has_every_kind_of_heuristic():
    groups = [config(name)["group"] for name in SUITE]
    assert {g: groups.count(g) for g in set(groups)} == GROUPS
    assert sorted(SUITE) == sorted(OPTIMAL)


# -- scores -------------------------------------------------------------------------------------------------------
@every_task
def test_optimum_is_reached_by_a_scripted_policy_and_not_exceeded(name):
    torch.manual_seed(0)
    env = make(name, 2048)
    achieved, _ = returns(env, OPTIMAL[name])
    # With 2048 random starts the mean optimum of this sample is within 0.01 of the optimum.
    assert 0.98 <= score(name, achieved.mean().item()) <= 1.01


@every_task
def test_optimum_in_the_file_is_the_computed_one(name):
    cfg = config(name)
    assert cfg["scores"]["optimal"] == pytest.approx(task_class(name).optimal_return(cfg), abs=1e-4)


@every_task
def test_random_score_in_the_file(name):
    env = make(name, 4096)
    achieved, _ = returns(env, noise(env))
    error = achieved.std().item() / 64.0
    # the file's number is a mean over 100 000 episodes, to 4 digits
    assert achieved.mean().item() == pytest.approx(config(name)["scores"]["random"], abs=4.2 * error + 1e-4)


# -- the step contract --------------------------------------------------------------------------------------------
@every_task
def test_shapes_and_bounds(name):
    env = make(name, 8, random_start=True)
    assert env.reset().shape == (8, env.num_obs)
    for _ in range(5):
        result = env.step(noise(env)(None))
        assert result.rewards.shape == (8, 2)
        assert result.obs.dtype == torch.float32
        assert not result.bad.any()


@every_task
def test_same_seed_same_episodes(name):
    def run(seed):
        env = make(name, 16, (seed,), random_start=True)
        policy, out = noise(env), [env.reset()]
        for _ in range(120):
            result = env.step(policy(None))
            out += [result.obs, result.rewards, result.done.float().unsqueeze(1)]
        return torch.cat([x.flatten() for x in out])

    assert torch.equal(run(3), run(3))
    if task_class(name).num_uniforms:
        assert not torch.equal(run(3), run(4))


@every_task
def test_state_round_trip_is_exact(name):
    """An env of another seed continues from a saved state as the saved one does, and the copy does not change."""
    env, other = make(name, 16, (1,), random_start=True), make(name, 16, (2,), random_start=True)
    other.reset()
    env.reset()
    policy = noise(env)
    for _ in range(37):
        last = env.step(policy(None))
    saved = io.BytesIO()
    state = env.get_state()
    torch.save(state, saved)
    first, second = noise(env, 5), noise(env, 5)
    steps = env.max_episode_length + 3  # past every env's next reset
    original = [env.step(first(None)) for _ in range(steps)]
    saved.seek(0)
    again = torch.load(saved, weights_only=True)
    assert all(torch.equal(state["task"][key], again["task"][key]) for key in state["task"])
    assert torch.equal(other.load_state(again), last.obs)
    for x in original:
        y = other.step(second(None))
        assert torch.equal(x.obs, y.obs)
        assert torch.equal(x.rewards, y.rewards)
        assert torch.equal(x.done, y.done)


@every_task
def test_one_runs_resets_do_not_touch_another_runs_draws(name):
    """The second block of envs lives the same life, whatever seed, clock and actions the first has."""

    def second_block(seed, late):
        env = make(name, 8, (seed, 5))
        out = [env.reset()[4:]]
        env.progress[:4] += late
        policy = noise(env)
        for _ in range(2 * env.max_episode_length + 5):
            actions = policy(None)
            actions[:4] *= 1.0 if late else -1.0
            out.append(env.step(actions).obs[4:])
        return torch.stack(out)

    assert torch.equal(second_block(1, 0), second_block(2, 13 % make(name, 8).max_episode_length))


@every_task
def test_a_reset_changes_the_selected_envs_only(name):
    env = make(name, 6)
    env.reset()
    env.step(noise(env)(None))
    before = {k: v.clone() for k, v in env.task.get_state().items()}
    mask = torch.tensor([True, False, True, False, False, False])
    env.task.reset(mask)
    for key, value in env.task.get_state().items():
        assert torch.equal(value[~mask], before[key][~mask]), key


@every_task
def test_time_limit_and_terminations(name):
    env = make(name, 64)
    env.reset()
    length = env.max_episode_length
    ends = [env.step(torch.zeros(64, env.num_actions)) for _ in range(length)]
    if name in ONE_STEP:
        assert ends[0].terminated.all() and not ends[0].time_out.any()
    elif name == "Survival":  # nobody balances, but nobody runs either: a standing runner does not fall
        assert ends[-1].time_out.all()
    else:
        assert not any(e.done.any() for e in ends[:-1])
        assert ends[-1].time_out.all() and not ends[-1].terminated.any()


@every_task
def test_every_heuristic_gives_finite_terms_that_sum_to_h(name):
    cls = task_class(name)
    for heuristic in cls.heuristics:
        env = make(name, 32, heuristic=heuristic)
        env.reset()
        policy = noise(env)
        for _ in range(10):
            result = env.step(policy(None))
            assert result.rewards.isfinite().all()
            assert torch.allclose(result.terms.sum(1), result.rewards[:, 1], atol=1e-5), heuristic
            assert not result.faults.any()
    with pytest.raises(UserError, match="unknown heuristic"):
        cls.find_heuristic("defautl")


# -- what h alone leads to ----------------------------------------------------------------------------------------
def heuristic_return(name, policy, heuristic="default", **settings):
    torch.manual_seed(0)
    task_return, h = returns(make(name, 512, heuristic=heuristic, **settings), policy)
    return task_return.mean().item(), h.mean().item()


HACKS = {  # task: (policy that is better for the default h than the task's optimum, its J)
    "Honeypot": (lambda s: -torch.ones(512, 1), 0.0),
    "TwoArm": (lambda s: -torch.ones(512, 1), 0.0),
    "QuadraticPoint": (lambda s: torch.full((512, 1), 0.75), -4.0),
    "TwoPeaks": (lambda s: (-0.5 - s.x).unsqueeze(1) / 0.08, 0.3),
    "Survival": (
        lambda s: torch.stack(((0.2 - s.speed) / 0.05, -s.lean * (1.0 + 0.2 * s.speed) / 0.1), 1),
        (0.05 + 0.1 + 0.15 + 0.2 * 97) / 100,
    ),
    # x at which holding costs least, and the share of goals (distance uniform on 0.2 ... 1) held from there
    "EffortReach": (
        lambda s: (s.goal / 1.32 - s.pos) / 0.1 + 0.8 * s.pos,
        (0.15 * 1.32 / 0.32 - 0.2) / 0.8 * 0.965,
    ),
    "RingRace": (lambda s: torch.where(s.phi < 0.1, 1.0, -1.0).unsqueeze(1), 0.0),
}


@pytest.mark.parametrize("name", sorted(HACKS))
def test_the_default_heuristic_pays_more_for_the_hack(name):
    policy, j = HACKS[name]
    hack, optimum = heuristic_return(name, policy), heuristic_return(name, OPTIMAL[name])
    assert hack[1] > optimum[1]
    assert hack[0] == pytest.approx(j, abs=0.02)
    assert score(name, hack[0]) < 0.75
    if config(name)["group"] == "imperfect":
        assert score(name, hack[0]) > 0.1  # but it is worth something: the constraint has a reference


def test_aligned_defaults_pay_most_for_the_optimum():
    still = {"KeyDoor": 2, "MountainCar": 1, "Park2D": 2}
    for name, actions in still.items():
        best = heuristic_return(name, OPTIMAL[name])[1]
        assert best > heuristic_return(name, lambda s, k=actions: torch.zeros(512, k))[1]
        assert best > heuristic_return(name, lambda s, k=actions: torch.randn(512, k))[1]


def test_maze_gradient_leads_into_the_cup_and_the_geodesic_one_out():
    to_the_right = lambda s: torch.tensor([[1.0, 0.0]]).repeat(512, 1)  # noqa: E731
    out = heuristic_return("Maze2D", OPTIMAL["Maze2D"])
    stuck = heuristic_return("Maze2D", to_the_right)
    assert stuck[0] == 0.0 < out[0]
    for steps in (3, 6):  # within the discount's reach the straight distance prefers the bottom of the cup
        assert (
            heuristic_return("Maze2D", to_the_right, episode_length=steps)[1]
            > heuristic_return("Maze2D", OPTIMAL["Maze2D"], episode_length=steps)[1]
        )
        assert (
            heuristic_return("Maze2D", to_the_right, "geodesic", episode_length=steps)[1]
            < heuristic_return("Maze2D", OPTIMAL["Maze2D"], "geodesic", episode_length=steps)[1]
        )


def test_honeypot_threshold_and_its_binding_version():
    """spec: goal is optimal for r + lambda h iff lambda < (1 - gamma) gamma^(N - 1) / c = 0.09135."""
    gamma, c = 0.99, 0.1
    assert (1 - gamma) * gamma**9 / c == pytest.approx(0.09135, abs=1e-5)
    stay = heuristic_return("Honeypot", lambda s: -torch.ones(512, 1), honey_reward=0.005)
    assert stay[0] == pytest.approx(0.25)
    assert stay[1] == pytest.approx(c * 50)
    assert task_class("Honeypot").optimal_return(config("Honeypot", honey_reward=0.05)) == pytest.approx(2.5)
    assert math.isclose(gamma**9, 0.9135, abs_tol=1e-4) and 0.005 / (1 - gamma) < gamma**9
