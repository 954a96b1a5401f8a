"""Other people's PPO on our environments: each of examples/ trains Cartpole. Run with

python -m pytest -m slow tests/api/test_clients.py
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import hepo_isaac
from hepo_isaac.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location("example_" + name, EXAMPLES / (name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what these libraries warn of is theirs
@pytest.mark.parametrize("name", ["cleanrl_ppo", "sb3_ppo", "skrl_ppo", "rsl_rl_ppo"])
def test_it_learns_cartpole(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = example(name).main()
    assert found.score >= 0.9, str(found)
    assert found.task_return.n == 256 and list(tmp_path.glob("*.py")) == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_fits_a_screen_or_two(path):
    assert len(path.read_text().splitlines()) <= 80


@pytest.mark.parametrize(("module", "package"), [("sb3", "stable_baselines3"), ("rsl_rl", "rsl_rl")])
def test_a_missing_library_says_the_command(module, package, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "hepo_isaac.api." + module, raising=False)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[peers\]'"):
        importlib.import_module("hepo_isaac.api." + module)


@pytest.mark.slow
def test_stable_baselines3_gets_what_the_step_loop_says():
    from hepo_isaac.api.sb3 import Sb3VecEnv

    wrapped = Sb3VecEnv(hepo_isaac.make("Cartpole", 4, reward="sum", seed=1))
    bare = hepo_isaac.make("Cartpole", 4, reward="sum", seed=1)
    wrapped.seed(5)
    np.testing.assert_array_equal(wrapped.reset(), bare.reset(seed=5)[0])
    returns, ends = np.zeros(4), 0
    for _ in range(60):
        action = np.ones((4, 1), np.float32)
        obs, reward, done, infos = wrapped.step(action)
        other = bare.step(action)
        np.testing.assert_array_equal(obs, other[0])
        np.testing.assert_array_equal(reward, other[1])
        returns += reward
        for i in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[i]["terminal_observation"], other[4]["final_obs"][i])
            assert infos[i]["TimeLimit.truncated"] == bool(other[3][i])
            assert infos[i]["episode"]["r"] == pytest.approx(returns[i], rel=1e-5)
            assert infos[i]["task_return"] + infos[i]["heuristic_return"] == pytest.approx(returns[i], rel=1e-4)
            returns[i], ends = 0.0, ends + 1
        assert all(infos[i] == {} for i in np.flatnonzero(~done))
    assert ends > 4 and wrapped.get_attr("task_name") == ["Cartpole"] * 4 and wrapped.env_is_wrapped(int) == [False] * 4
    wrapped.close(), bare.close()
    with pytest.raises(UserError, match="output='numpy'"):
        Sb3VecEnv(hepo_isaac.make("Push2D", 2, output="torch"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_rsl_rl_gets_what_the_step_loop_says():
    import torch

    from hepo_isaac.api.rsl_rl import RslRlVecEnv

    arguments = {"task__observation_type": "openai", "task__asymmetric_observations": True}
    wrapped = RslRlVecEnv(hepo_isaac.make("ShadowHand", 2, output="torch", seed=1, task__episode_length=3, **arguments))
    bare = hepo_isaac.make("ShadowHand", 2, output="torch", seed=1, task__episode_length=3, **arguments)
    obs, infos = bare.reset()
    assert torch.equal(wrapped.get_observations()["policy"], obs)
    assert torch.equal(wrapped.get_observations()["critic"], torch.cat((obs, infos["state"]), 1))
    for step in range(1, 5):
        obs, reward, done, extras = wrapped.step(torch.zeros(2, 20))
        other = bare.step(torch.zeros(2, 20))
        assert torch.equal(obs["policy"], other[0]) and torch.equal(reward, other[1])
        assert torch.equal(extras["time_outs"], other[3]) and bool(done.all()) == (step == 3)
        assert bool(extras["log"]["/task_return"].isnan()) == (step != 3)
    wrapped.episode_length_buf = torch.tensor([2, 0])
    assert wrapped.step(torch.zeros(2, 20))[2].tolist() == [True, False]
    wrapped.close(), bare.close()
    with pytest.raises(UserError, match="output='torch'"):
        RslRlVecEnv(hepo_isaac.make("Push2D", 2))
