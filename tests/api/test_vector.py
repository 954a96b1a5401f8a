"""hepo_isaac.make: gymnasium's contract, against gymnasium's own SyncVectorEnv and against the bare step loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

import hepo_isaac
from hepo_isaac.api.rewards import REWARDS
from hepo_isaac.api.settings import composed
from hepo_isaac.api.vector import HepoVectorEnv
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.streams import Streams
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.errors import UserError
from hepo_isaac.locate import task_class, task_names
from hepo_isaac.registration import env_id
from tests.gpu import meta

SAME_STEP = AutoresetMode.SAME_STEP


def shaping(state):
    """Of Cartpole: two terms."""
    return {"tilt": -state.pole_angle.abs(), "speed": -0.1 * state.cart_vel.abs()}


def same(a, b):
    """Whether two results of reset or step are equal to the bit, dicts and object arrays included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, np.ndarray) and a.dtype == object:
        return all(same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and (a is None or np.array_equal(np.asarray(a), np.asarray(b)))


def actions_of(env, steps, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def test_spaces_and_metadata():
    env = hepo_isaac.make("Cartpole", 3)
    assert isinstance(env, gymnasium.vector.VectorEnv) and env.unwrapped is env
    assert env.metadata["autoreset_mode"] is SAME_STEP and env.metadata["render_fps"] == pytest.approx(1 / 0.0166)
    assert env.single_observation_space == gymnasium.spaces.Box(-5, 5, (4,), np.float32)
    assert env.single_action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    assert env.observation_space.shape == (3, 4) and env.action_space.shape == (3, 1)
    obs, infos = env.reset(seed=1)
    assert env.observation_space.contains(obs) and infos == {}
    obs, reward, terminated, truncated, infos = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)
    assert reward.shape == terminated.shape == truncated.shape == (3,)
    assert reward.dtype == np.float32 and terminated.dtype == truncated.dtype == bool
    assert (env.task_name, env.heuristic_name, env.num_states, env.state_space) == ("Cartpole", "default", 0, None)
    assert env.max_episode_length == 499 and env.scores == {"random": 0.026, "optimal": 1.0}
    env.close()


def test_it_is_the_step_loop_that_trainings_use():
    """Observations, rewards, ends and final observations of the bare TaskEnv, made and seeded as a training does."""
    env = hepo_isaac.make("Cartpole", 5, seed=7, task__episode_length=20)
    bare = make_env({**env.settings, "seed": 7}, random_start=False)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs, bare.reset().numpy())
    ends, sums = 0, np.zeros((5, 2))
    for action in actions_of(env, 60):
        obs, reward, terminated, truncated, infos = env.step(action)
        result = bare.step(torch.from_numpy(action))
        np.testing.assert_array_equal(obs, result.obs.numpy())
        np.testing.assert_array_equal(reward, result.rewards[:, 0].numpy())
        np.testing.assert_array_equal(infos["task_reward"], reward)
        np.testing.assert_array_equal(infos["heuristic_reward"], result.rewards[:, 1].numpy())
        np.testing.assert_allclose(
            sum(infos["reward_terms"][n] for n in result.term_names), infos["heuristic_reward"], 1e-5
        )
        np.testing.assert_array_equal(terminated, result.terminated.numpy())
        np.testing.assert_array_equal(truncated, result.time_out.numpy())
        np.testing.assert_array_equal(infos["metrics"]["survived"], result.metrics[:, 0].numpy())
        sums += result.rewards.numpy()
        done = terminated | truncated
        ends += done.sum()
        assert ("final_obs" in infos) == ("final_info" in infos) == done.any()
        for i in np.flatnonzero(done):
            np.testing.assert_array_equal(infos["final_obs"][i], result.final_obs[i].numpy())
            assert not np.array_equal(infos["final_obs"][i], obs[i])
            assert infos["final_info"]["task_return"][i] == pytest.approx(sums[i, 0], abs=1e-5)
            assert infos["final_info"]["heuristic_return"][i] == pytest.approx(sums[i, 1], abs=1e-3)
            sums[i] = 0.0
    assert ends > 5
    env.close(), bare.close()


def test_infos_are_laid_out_as_gymnasium_lays_them_out():
    """SyncVectorEnv over single environments says at the end of an episode what ours says: the same keys, the same
    kinds, the same masks. What it lacks are this step's numbers of the envs that have begun anew; ours has them."""
    ours = gymnasium.make_vec("hepo_isaac/Push2D-v0", num_envs=3, task__episode_length=4)
    theirs = gymnasium.make_vec(
        "hepo_isaac/Push2D-v0",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": SAME_STEP},
        task__episode_length=4,
    )
    assert theirs.metadata["autoreset_mode"] is SAME_STEP

    def kinds(value):
        if isinstance(value, dict):
            return {key: kinds(inner) for key, inner in value.items()}
        return value.dtype.kind, value.shape

    ours.reset(seed=0), theirs.reset(seed=0)
    for step in range(1, 9):
        action = np.zeros((3, 3), np.float32)
        mine, other = ours.step(action), theirs.step(action)
        assert [kinds(x) for x in mine[2:4]] == [kinds(x) for x in other[2:4]]
        if step % 4:
            assert kinds(mine[4]) == kinds(other[4])
            continue
        assert mine[3].all() and other[3].all()
        assert kinds(mine[4]["final_info"]) == kinds(other[4]["final_info"])
        for key in ("final_obs", "_final_obs", "_final_info"):
            assert kinds(mine[4][key]) == kinds(other[4][key])
        assert set(mine[4]) - set(other[4]) <= set(mine[4]["final_info"])
    ours.close(), theirs.close()


def test_masks_leave_out_who_goes_on():
    env = hepo_isaac.make("Cartpole", 4)
    env.reset(seed=3)
    for action in actions_of(env, 400, 1):
        _, _, terminated, truncated, infos = env.step(np.sign(action))
        done = terminated | truncated
        if 0 < done.sum() < 4:
            break
    final = infos["final_info"]
    np.testing.assert_array_equal(infos["_final_obs"], done)
    np.testing.assert_array_equal(infos["_final_info"], done)
    assert [row is None for row in infos["final_obs"]] == list(~done)
    assert (final["episode_length"][~done] == 0).all() and (final["episode_length"][done] > 0).all()
    np.testing.assert_array_equal(final["metrics"]["_survived"], done)
    env.close()


def test_seeds_decide_everything():
    env = hepo_isaac.make("Cartpole", 4, seed=5, task__episode_length=15)
    actions = actions_of(env, 40)

    def play(seed):
        return [env.reset(seed=seed), *(env.step(action) for action in actions)]

    first, again, other = play(11), play(11), play(12)
    assert same(first, again) and not same(first[0], other[0])
    assert env.np_random_seed == 12
    unseeded = hepo_isaac.make("Cartpole", 4, seed=11, task__episode_length=15)
    assert same(first, [unseeded.reset(), *(unseeded.step(action) for action in actions)])
    assert not same(unseeded.reset(), unseeded.reset())  # random numbers go on
    env.close(), unseeded.close()


def test_tensors_and_arrays_say_the_same():
    arrays = hepo_isaac.make("Cartpole", 4, seed=2, task__episode_length=10)
    tensors = hepo_isaac.make("Cartpole", 4, seed=2, task__episode_length=10, output="torch")
    arrays.reset()
    obs_t = tensors.reset()[0]
    assert isinstance(obs_t, torch.Tensor) and obs_t.device == tensors.device
    for action in actions_of(arrays, 25):
        one, two = arrays.step(action), tensors.step(torch.from_numpy(action))
        for x, y in zip(one[:4], two[:4]):
            np.testing.assert_array_equal(x, y.numpy())
        done = one[2] | one[3]
        np.testing.assert_array_equal(two[4]["_final_obs"].numpy(), done)
        for i in range(4):
            np.testing.assert_array_equal(
                two[4]["final_obs"][i].numpy(), one[4]["final_obs"][i] if done[i] else one[0][i]
            )
        if done.any():
            for name in ("task_return", "episode_length"):
                np.testing.assert_array_equal(
                    two[4]["final_info"][name].numpy()[done], one[4]["final_info"][name][done]
                )
    arrays.close(), tensors.close()


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_what_is_returned_is_the_callers(output):
    """Nothing handed out changes later, and what is written into it reaches nothing else."""
    arguments = {"task__observation_type": "openai", "task__asymmetric_observations": True}
    env = hepo_isaac.make("ShadowHand", 2, output=output, seed=1, **arguments)
    env.reset()
    obs, reward, terminated, _, infos = env.step(np.zeros((2, 20), np.float32))
    kept, state = infos["task_reward"].tolist(), env.state().tolist()
    reward[:], obs[:], infos["state"][:] = 7, 7, 7
    assert infos["task_reward"].tolist() == kept and env.state().tolist() == state
    before = np.array(obs), np.array(terminated)
    env.step(np.ones((2, 20), np.float32))
    np.testing.assert_array_equal(obs, before[0])
    np.testing.assert_array_equal(terminated, before[1])
    env.close()


def test_it_can_be_stepped_in_inference_mode_and_out_of_it():
    env = hepo_isaac.make("Cartpole", 2, output="torch", task__episode_length=3)
    with torch.inference_mode():
        env.reset()
        for _ in range(4):
            env.step(torch.zeros(2, 1))
    env.reset()
    obs = env.step(torch.zeros(2, 1))[0]
    assert not obs.is_inference() and not obs.requires_grad
    env.step(torch.zeros(2, 1, requires_grad=True))
    env.close()


def test_with_tensors_a_step_asks_the_host_for_nothing():
    """On torch's device meta, which stands for a GPU; with arrays the same step has to ask."""
    found = {}
    for output in ("torch", "numpy"):
        with meta.simulated("Push2D") as sim:
            cfg = meta.settings("Push2D", "hepo")
            streams = Streams([torch.Generator(meta.META)], meta.NUM_ENVS, meta.META, sim.may_select)
            task_env = TaskEnv(task_class("Push2D")(cfg["task"], sim, streams), False)
            env = HepoVectorEnv(task_env, cfg, REWARDS["sum"], output)
            actions = torch.zeros(meta.NUM_ENVS, 3, device=meta.META)
            with meta.watch() as reads:
                env.task_env.reset()
                env._current = task_env.observe()
                if output == "torch":
                    env.reset(seed=1)
                    infos = env.step(actions)[-1]
                    assert {"faults", "final_obs", "final_info"} <= set(infos)
                reads.watching = True
                env.step(actions)
                reads.watching = False
            found[output] = reads.found
    assert found["torch"] == [] and found["numpy"] != []


def test_the_reward_is_what_was_asked_for():
    made = {name: hepo_isaac.make("Cartpole", 3, reward=name, seed=1) for name in ("task", "heuristic", "sum")}
    made["own"] = hepo_isaac.make("Cartpole", 3, reward=lambda task, heuristic: 100 * task + heuristic, seed=1)
    rewards = {}
    for name, env in made.items():
        env.reset()
        _, rewards[name], _, _, infos = env.step(np.ones((3, 1), np.float32))
        env.close()
    np.testing.assert_array_equal(rewards["task"], infos["task_reward"])
    np.testing.assert_array_equal(rewards["heuristic"], infos["heuristic_reward"])
    np.testing.assert_array_equal(rewards["sum"], infos["task_reward"] + infos["heuristic_reward"])
    np.testing.assert_array_equal(rewards["own"], 100 * infos["task_reward"] + infos["heuristic_reward"])


def test_a_heuristic_is_a_name_or_a_function(tmp_path, monkeypatch):
    (tmp_path / "my_shaping.py").write_text(
        "def tilt(state):\n    return -state.pole_angle.abs()\n\ndef noisy(state, random):\n    return random.rand()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    named = hepo_isaac.make("Cartpole", 3, "my_shaping:tilt")
    mine = hepo_isaac.make("Cartpole", 3, shaping)
    closure = hepo_isaac.make("Cartpole", 3, lambda state: 2.0 * shaping(state)["tilt"])
    told = []
    for env in (named, mine, closure):
        env.reset(seed=1)
        told.append(env.step(np.ones((3, 1), np.float32))[4])
    np.testing.assert_array_equal(told[0]["heuristic_reward"], told[1]["reward_terms"]["tilt"])
    assert [name for name in told[1]["reward_terms"] if name[0] != "_"] == ["tilt", "speed"]
    np.testing.assert_allclose(told[2]["heuristic_reward"], 2 * told[0]["heuristic_reward"], 1e-6)
    assert (named.heuristic_name, mine.heuristic_name) == ("my_shaping:tilt", "shaping")
    noise = [hepo_isaac.make("Cartpole", 3, heuristic, seed=4) for heuristic in ("my_shaping:noisy",) * 2]
    drawn = []
    for env in noise:
        env.reset()
        drawn.append(env.step(np.ones((3, 1), np.float32))[4]["heuristic_reward"])
        env.reset(seed=4)
        drawn.append(env.step(np.ones((3, 1), np.float32))[4]["heuristic_reward"])
    assert len({tuple(row) for row in drawn}) == 1  # the seed's, whoever has tried the function before
    for env in (named, mine, closure, *noise):
        env.close()


def test_settings_in_both_spellings_and_by_their_names_elsewhere():
    one = hepo_isaac.make("Cartpole", 2, task__physics__substeps=4, sim__threads=1)
    two = hepo_isaac.make("Cartpole", 2, settings={"task.physics.substeps": np.int64(4)}, sim_device="cpu")
    for env in (one, two):
        assert env.settings["task"]["physics"]["substeps"] == 4
        env.close()
    assert one.settings["sim"]["threads"] == 1


def test_states_of_critics():
    """ShadowHand: policies see 42 numbers, critics 211 besides."""
    arguments = {"task__observation_type": "openai", "task__asymmetric_observations": True}
    env = hepo_isaac.make("ShadowHand", 2, task__episode_length=2, **arguments)
    assert env.state() is None
    obs, infos = env.reset(seed=0)
    assert (env.single_observation_space.shape, env.state_space.shape) == ((42,), (211,))
    assert obs.shape == (2, 42) and infos["state"].shape == (2, 211)
    np.testing.assert_array_equal(infos["state"], env.state())
    assert env.call("state")[1].shape == (2, 211) and env.get_attr("num_states") == (211, 211)
    env.step(np.zeros((2, 20)))
    obs, _, _, truncated, infos = env.step(np.zeros((2, 20)))
    assert truncated.all() and infos["final_info"]["state"].shape == (2, 211)
    assert not np.array_equal(infos["final_info"]["state"], infos["state"])
    env.close()


def test_first_episodes_may_begin_at_a_random_time():
    env = hepo_isaac.make("Push2D", 64, random_start=True, task__episode_length=50)
    env.reset(seed=0)
    at = [int(env.step(np.zeros((64, 3)))[3].sum()) for _ in range(50)]
    assert sum(at) == 64 and max(at) < 10
    env.reset(seed=0, options={"random_start": False})
    at = [int(env.step(np.zeros((64, 3)))[3].sum()) for _ in range(50)]
    assert at == [0] * 49 + [64]
    env.close()


def test_gymnasiums_wrappers_work():
    env = gymnasium.make_vec("hepo_isaac/Push2D-v0", num_envs=4, task__episode_length=5, reward="heuristic")
    env = wrappers.RecordEpisodeStatistics(wrappers.ClipReward(env, max_reward=1.0))
    env.reset(seed=1)
    told = [env.step(np.zeros((4, 3), np.float32))[4] for _ in range(5)]
    assert told[-1]["episode"]["l"].tolist() == [5] * 4 and told[-1]["_episode"].all()
    listed = wrappers.DictInfoToList(env)
    told = [listed.step(np.zeros((4, 3), np.float32))[4] for _ in range(5)]
    assert set(told[-1][2]["final_info"]) >= {"task_return", "metrics"} and "final_obs" not in told[0][2]
    scaled = wrappers.TransformObservation
    with pytest.raises(ValueError, match="autoreset_mode"):  # gymnasium's own refusal of same-step environments
        scaled(env, lambda obs: obs)
    env.close()


def test_gymnasiums_checker_has_nothing_to_say():
    """Warnings are errors here, and pictures are looked at."""
    env = gymnasium.make("hepo_isaac/Cartpole-v0")
    check_env(env.unwrapped)
    env.close()


def test_one_environment_ends_where_the_vector_ends():
    one = gymnasium.make("hepo_isaac/Cartpole-v0", reward="sum", task__episode_length=30)
    many = hepo_isaac.make("Cartpole", 1, reward="sum", task__episode_length=30)
    assert same(one.reset(seed=3)[0], many.reset(seed=3)[0][0])
    for action in actions_of(many, 30):
        obs, reward, terminated, truncated, info = one.step(action[0])
        told = many.step(action)
        assert isinstance(reward, float) and reward == pytest.approx(float(told[1][0]))
        assert (terminated, truncated) == (bool(told[2][0]), bool(told[3][0]))
        ended = terminated or truncated
        np.testing.assert_array_equal(obs, told[4]["final_obs"][0] if ended else told[0][0])
        assert ("task_return" in info) == ended
        if ended:
            break
    assert ended and info["episode_length"] == len(actions_of(many, 30)) or terminated
    one.close(), many.close()


def test_pictures():
    env = hepo_isaac.make("Cartpole", 3, render_mode="rgb_array", render_envs=[0, 2])
    env.reset(seed=1)
    first = env.render()
    assert [p.shape for p in first] == [(480, 640, 3)] * 2 and all(p.dtype == np.uint8 for p in first)
    assert all(p.std() > 10 for p in first) and not np.array_equal(*first)
    assert np.abs(np.subtract(env.render(), first, dtype=int)).max() < 8  # nothing has moved
    for _ in range(10):
        env.step(np.ones((3, 1), np.float32))
    assert not np.array_equal(env.render()[0], first[0])
    env.render_envs = range(3)
    assert len(env.render()) == env.num_envs
    process = env._frames._process
    env.close()
    assert process.wait(5) is not None


def test_all_envs_can_be_shown():
    """gymnasium.wrappers.vector.RecordVideo asks for a picture of each."""
    env = gymnasium.make_vec("hepo_isaac/Cartpole-v0", num_envs=3, render_mode="rgb_array", render_envs="all")
    assert tuple(env.render_envs) == (0, 1, 2) and env.render_mode == "rgb_array"
    env.close()


def test_a_renderer_that_dies_is_a_sentence():
    env = hepo_isaac.make("Cartpole", 1, render_mode="rgb_array")
    env.reset()
    env.render()
    env._frames._process.kill()
    with pytest.raises(UserError, match="cannot render"):
        env.render()
    env.close()


def test_a_task_from_a_file(tmp_path, monkeypatch):
    from hepo_isaac import plugins

    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "lazy_api.py").write_text(
        "from hepo_isaac.locate import task_class\n\nclass Lazy(task_class('TwoArm')):\n    name = 'Lazy'\n"
    )
    (tmp_path / "Lazy.yaml").write_text(
        "defaults:\n  - /train: suite\n  - _self_\ntask:\n  name: Lazy\n  episode_length: 7\n"
        "  heuristic: ${heuristic}\n  engines: [analytic]\n  budgets: {demo: {num_envs: 4}}\n"
    )
    for task in (str(tmp_path / "lazy_api.py") + ":Lazy", tmp_path):
        env = hepo_isaac.make(task, 2)
        assert (env.task_name, env.max_episode_length) == ("Lazy", 7)
        env.close()


def test_a_program_that_uses_hydra_keeps_its_own(tmp_path):
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "mine.yaml").write_text("a: 1\n")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert composed(["task=Cartpole"]).task.name == "Cartpole"
        assert hydra.compose("mine").a == 1


def test_every_task_is_registered_as_soon_as_gymnasium_is_there():
    """In either order of imports; importing the package alone imports neither gymnasium nor torch."""
    names = sorted(env_id(task) for task in task_names())
    report = "print(sorted(n for n in gymnasium.registry if n.startswith('hepo_isaac/')))"
    for imports in ("import hepo_isaac, gymnasium", "import gymnasium, hepo_isaac"):
        code = "import sys; %s; assert 'torch' not in sys.modules; %s" % (imports, report)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert done.stdout.strip() == str(names), done.stderr
    code = (
        "import sys, hepo_isaac; print([m for m in ('torch', 'numpy', 'gymnasium', 'omegaconf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names():
    assert set(hepo_isaac.__all__) <= set(dir(hepo_isaac))
    for name in hepo_isaac.__all__:
        found = getattr(hepo_isaac, name)
        assert name == "__version__" or found.__doc__
