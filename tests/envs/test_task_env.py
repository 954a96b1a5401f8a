"""The step loop with a counting task and a fake engine: time limits, resets, bad worlds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hepo_isaac.envs.faults import FAULTS
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task import Rewards
from hepo_isaac.envs.task_env import TaskEnv

N = 4


class FakeSim(SimpleNamespace):
    """No physics: worlds turn bad when told to."""

    def __init__(self):
        super().__init__(
            num_envs=N,
            device=torch.device("cpu"),
            bad_envs=torch.zeros(N, dtype=torch.bool),
            overflow_count=torch.zeros((), dtype=torch.int64),
            next_bad=(),
        )

    def may_select(self, mask):
        return bool(mask.any())

    def step(self):
        self.bad_envs[:] = False
        self.bad_envs[list(self.next_bad)] = True


class Counter:
    """Observation 0 counts steps since the reset, observation 1 holds the last action; env 3 terminates at 3."""

    num_obs, num_actions, num_states, max_episode_length = 2, 1, 0, 5
    name, heuristic_name = "Counter", "counter"
    heuristic = SimpleNamespace(random=None)

    def __init__(self, sim, streams):
        self.sim, self.streams = sim, streams
        self.count = torch.zeros(N)
        self.action = torch.zeros(N)
        self.resets = []

    def apply(self, actions):
        self.action = actions[:, 0].clone()
        self.count += 1

    def observe(self):
        obs = torch.stack((self.count, self.action), 1)
        return torch.where(self.sim.bad_envs.unsqueeze(1), torch.full_like(obs, float("nan")), obs)

    def rewards(self):
        r = torch.where(self.sim.bad_envs, torch.full((N,), float("nan")), self.count)
        return Rewards(r, -r, {"term": r})

    def metrics(self):
        return {"late": self.count > 4}

    def terminated(self):
        return (torch.arange(N) == 3) & (self.count == 3)

    def reset(self, mask):
        self.resets.append(mask.clone())
        self.count = torch.where(mask, torch.zeros(N), self.count)
        self.sim.bad_envs = self.sim.bad_envs & ~mask

    def get_state(self):
        return {"count": self.count.clone()}

    def load_state(self, state):
        self.count = state["count"].clone()


def make(random_start=False, seed=0):
    sim = FakeSim()
    streams = Streams([torch.Generator().manual_seed(seed)], sim.num_envs, sim.device, sim.may_select)
    return TaskEnv(Counter(sim, streams), random_start)


def test_time_limit_and_termination_are_told_apart():
    env = make()
    env.reset()
    results = [env.step(torch.zeros(N, 1)) for _ in range(5)]
    assert results[2].terminated.tolist() == [False] * 3 + [True]
    assert results[2].time_out.tolist() == [False] * 4
    assert results[4].time_out.tolist() == [True] * 3 + [False]
    assert results[4].done.tolist() == [True] * 3 + [False]


def test_done_step_returns_the_new_first_observation_and_keeps_the_final_one():
    env = make()
    env.reset()
    for _ in range(5):
        result = env.step(torch.zeros(N, 1))
    assert result.obs[:, 0].tolist() == [0, 0, 0, 2]
    assert result.final_obs[:, 0].tolist() == [5, 5, 5, 2]
    assert result.metrics[:, 0].tolist() == [1, 1, 1, 0]
    assert env.step(torch.zeros(N, 1)).obs[:, 0].tolist() == [1, 1, 1, 3 - 3]


def test_a_termination_at_the_time_limit_is_a_termination():
    env = make()
    env.reset()
    env.progress[3] = 2
    for _ in range(3):
        result = env.step(torch.zeros(N, 1))
    assert bool(result.terminated[3]) and not bool(result.time_out[3])


def test_actions_are_clamped():
    env = make()
    env.reset()
    assert env.step(torch.full((N, 1), 7.0)).obs[:, 1].tolist() == [1.0] * N


def test_bad_world_ends_without_poison():
    """Rewards 0, no bootstrap, finite observations, counted, and a fresh episode; the others go on."""
    env = make()
    env.reset()
    env.step(torch.zeros(N, 1))
    env.sim.next_bad = (1,)
    result = env.step(torch.zeros(N, 1))
    assert result.bad.tolist() == [False, True, False, False]
    assert result.terminated.tolist() == [False, True, False, False] and not result.time_out.any()
    assert result.rewards.tolist() == [[2.0, -2.0], [0.0, 0.0], [2.0, -2.0], [2.0, -2.0]]
    assert result.terms[:, 0].tolist() == [2.0, 0.0, 2.0, 2.0]
    assert not result.faults.any()  # nobody's fault but the physics'
    assert torch.isfinite(result.obs).all() and torch.isfinite(result.final_obs).all()
    assert result.counted.tolist() == [True, False, True, True]
    assert env.bad_count.item() == 1
    env.sim.next_bad = ()
    assert env.step(torch.zeros(N, 1)).obs[:, 0].tolist() == [3, 1, 3, 0]


BROKEN = [1.0, float("nan"), float("-inf"), 4e15]
FINE = torch.ones(N)


def faults_of(result):
    """{fault: envs that have it}."""
    return {
        name: result.faults[:, k].nonzero().flatten().tolist()
        for k, name in enumerate(FAULTS)
        if result.faults[:, k].any()
    }


@pytest.mark.parametrize(
    ("rewards", "fault"),
    [
        (lambda x: Rewards(x, FINE, {"term": FINE}), "task_reward"),
        (lambda x: Rewards(FINE, x, {"term": FINE}), "heuristic"),
        (lambda x: Rewards(FINE, FINE, {"term": x}), "heuristic"),
    ],
)
def test_what_is_no_number_in_a_sound_world_counts_as_0_and_is_reported(rewards, fault):
    env = make()
    env.reset()
    env.task.rewards = lambda: rewards(torch.tensor(BROKEN))
    result = env.step(torch.zeros(N, 1))
    assert faults_of(result) == {fault: [1, 2, 3]} and not result.bad.any() and not result.terminated.any()
    values = torch.cat((result.rewards, result.terms), 1)
    assert values.isfinite().all() and values.min() == 0.0 and (values[0] == 1.0).all()


def test_a_metric_that_is_no_number_is_reported():
    env = make()
    env.reset()
    env.task.metrics = lambda: {"late": torch.tensor(BROKEN)}
    assert faults_of(env.step(torch.zeros(N, 1))) == {"metric": [1, 2, 3]}


def test_an_action_that_is_no_number_is_0_and_reported_and_moves_nobody():
    env = make()
    env.reset()
    actions = torch.full((N, 1), 0.5)
    actions[2] = float("nan")
    result = env.step(actions)
    assert faults_of(result) == {"action": [2]}
    assert result.obs[:, 1].tolist() == [0.5, 0.5, 0.0, 0.5]


def test_an_observation_that_is_no_number_is_0_and_reported_also_the_first_of_an_episode():
    env = make()
    observe, broken = env.task.observe, torch.zeros(N, 2)
    env.task.observe = lambda: observe() + broken
    broken[1, 1], broken[2, 0] = float("nan"), float("inf")
    assert env.reset()[1:3].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    broken.zero_()
    assert faults_of(env.step(torch.zeros(N, 1))) == {"observation": [1, 2]}
    assert faults_of(env.step(torch.zeros(N, 1))) == {}


def test_a_potential_that_is_no_number_is_0_and_reported():
    env = make()
    env._potential = lambda state: (torch.tensor(BROKEN), {})
    env.task.state = lambda: None
    env.reset()
    result = env.step(torch.zeros(N, 1))
    assert faults_of(result) == {"potential": [1, 2, 3]} and result.potential.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_fault_in_a_world_that_diverged_is_the_physics():
    env = make()
    env.reset()
    env.sim.next_bad = (1, 2, 3)
    env.task.rewards = lambda: Rewards(torch.tensor(BROKEN), torch.tensor(BROKEN), {})
    result = env.step(torch.zeros(N, 1))
    assert faults_of(result) == {} and result.bad.tolist() == [False, True, True, True]


def test_random_start_spreads_the_first_resets_and_does_not_count_them():
    env = make(random_start=True, seed=3)
    env.reset()
    phases = env.progress.clone()
    assert len(set(phases.tolist())) > 1
    seen = torch.zeros(N, dtype=torch.bool)
    for step in range(1, 6):
        result = env.step(torch.zeros(N, 1))
        first = (phases + step == 5) & (torch.arange(N) != 3)
        assert torch.equal(result.time_out[:3], first[:3])
        assert not (result.counted & first & (phases > 0)).any()
        seen |= first
    assert env.counted[:3].all()


def test_state_round_trip():
    env, other = make(), make(seed=5)
    env.reset()
    other.reset()
    env.sim.get_state = dict
    other.sim.load_state = lambda state: None
    for _ in range(3):
        env.step(torch.zeros(N, 1))
    obs = other.load_state(env.get_state())
    assert obs[:, 0].tolist() == [3, 3, 3, 0] and other.progress.tolist() == [3, 3, 3, 0]
    for _ in range(2):
        a, b = env.step(torch.zeros(N, 1)), other.step(torch.zeros(N, 1))
        assert torch.equal(a.done, b.done) and torch.equal(a.obs, b.obs)


def test_rl_games_adapter():
    adapter = RlGamesVecEnv(make())
    info = adapter.get_env_info()
    assert info["value_size"] == 2 and info["observation_space"].shape == (2,) and info["action_space"].shape == (1,)
    adapter.reset()
    obs, rewards, done, infos = adapter.step(torch.zeros(N, 1))
    assert rewards.tolist() == [[1.0, -1.0]] * N and done.dtype == torch.bool and obs.shape == (N, 2)
    assert infos["term_names"] == ("term",) and infos["metric_names"] == ("late",)
    assert infos["terms"].shape == (N, 1) and infos["metrics"].shape == (N, 1)
    assert {name: int(v) for name, v in adapter.statistics().items()} == {
        "overflow": 0,
    }


def test_states_for_critics_travel_behind_the_observation():
    """Fresh after a reset, final in final_obs, clipped like the observation."""
    env = make()
    env.task.num_states = 1
    env.task.critic_state = lambda: 3.0 * env.task.count.unsqueeze(1)
    env = TaskEnv(env.task, random_start=False)
    assert env.num_obs == 3 and env.num_states == 1
    info = RlGamesVecEnv(env).get_env_info()
    assert info["state_size"] == 1 and info["observation_space"].shape == (3,)
    assert env.reset().tolist() == [[0.0, 0.0, 0.0]] * N
    for expected in (3.0, 5.0, 5.0):
        result = env.step(torch.ones(N, 1))
        assert result.final_obs[:, 2].tolist() == [expected] * N
    assert result.obs[:, 2].tolist() == [5.0, 5.0, 5.0, 0.0]  # env 3 has just begun anew
