"""hepo-isaac export: files that act as the policy does, say what they are, and refusals in one sentence."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hepo_isaac import cli
from hepo_isaac.runs.export.command import FORMATS, read_metadata, run_file
from hepo_isaac.runs.record.stored import SIGNATURE
from tests.runs.export_lab import ENV_STEPS, ITERATION, make_run

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = {"onnx": ".onnx", "torchscript": ".ts", "rl_games": ".pth"}


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), "task=Cartpole", "algo=hepo")


def export(capfd, *arguments):
    capfd.readouterr()
    code = cli.main(["export", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def observations(size, seed=0):
    """Some an environment could show, some it could not, and some that are no numbers."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(300, size, generator=generator) * torch.logspace(-2, 6, 300).unsqueeze(1)
    obs[0, 0], obs[1, -1], obs[2, 0], obs[3, :] = float("nan"), float("inf"), -float("inf"), 1e20
    return obs.numpy()


def restated(policies, policy, obs, activation=np.tanh, normalize=True):
    """The mean action in float64 NumPy, from the stack's own flat parameters."""
    seen = policies.num_obs - policies.net.num_states
    x = np.where(np.abs(obs) <= 1e15, obs, 0.0).astype(np.float64).clip(-5.0, 5.0)
    if normalize:
        mean, var = policies.obs_norm.mean[0, :seen].numpy(), policies.obs_norm.var[0, :seen].numpy()
        x = ((x - mean) / np.sqrt(var + 1e-5)).clip(-5.0, 5.0)
    flat, start = policies.net.flat[policy].detach().double().numpy(), 0
    actor = policies.net.trunk_sizes()[0]
    for i, (fan_in, fan_out) in enumerate(zip(actor[:-1], actor[1:])):
        weight = flat[start : start + fan_in * fan_out].reshape(fan_in, fan_out)
        bias = flat[start + fan_in * fan_out : start + (fan_in + 1) * fan_out]
        start += (fan_in + 1) * fan_out
        x = x @ weight + bias
        if i < len(actor) - 2:
            x = activation(x)
    return x[:, : policies.num_actions].clip(-1.0, 1.0)


ACTIVATIONS = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
}
CASES = [
    ("pi", "elu", ["task=Cartpole", "algo=hepo"]),
    ("pi_h", "relu", ["task=Push2D", "algo=hepo"]),
    ("pi_j", "tanh", ["task=Push2D", "algo=hepo_plus"]),
    ("pi", "selu", ["task=Cartpole", "algo=ppo_h", "train.normalize_input=false"]),
    ("pi", "elu", ["task=ShadowHand", "algo=ppo_j", "budget=cpu", "task.observation_type=openai"]),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "%s-%s" % (case[2][0], case[1]))
def case(request, tmp_path_factory):
    policy, activation, overrides = request.param
    network = ["train.network.activation=" + activation, "train.network.units=[24,16,8]"]
    return (*request.param, *make_run(tmp_path_factory.mktemp("case"), *overrides, *network))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_acts_as_the_formula(capfd, tmp_path, kind, case):
    """Against a restatement in NumPy: neither torch nor the exported actor is asked. Widths of three layers differ."""
    policy, activation, overrides, run, policies = case
    out = tmp_path / ("file" + SUFFIX[kind])
    code, said, err = export(capfd, "run=%s" % run, "policy=" + policy, "format=" + kind, "out=%s" % out)
    assert (code, err) == (0, "")
    assert float(re.search(r"at most (\S+) over 1000", said).group(1)) <= 1e-5
    seen = policies.num_obs - policies.net.num_states
    assert (policies.net.num_states > 0) == ("budget=cpu" in overrides)
    assert read_metadata(out, kind)["policy"] == policy
    obs = observations(seen)
    normalize = "train.normalize_input=false" not in overrides
    number = {"pi": 0, "pi_h": 1, "pi_j": 2}[policy]
    expected = restated(policies, number, obs, ACTIVATIONS[activation], normalize)
    act = run_file(out, kind)
    found = act(obs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() == 1.0  # some are clamped
    assert np.abs(expected).min() < 0.9  # and some are not
    for rows in (0, 1, 7):  # any number of rows
        np.testing.assert_allclose(act(obs[:rows]), found[:rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_says_what_it_is(capfd, tmp_path, cartpole, kind):
    run, _ = cartpole
    out = tmp_path / ("file" + SUFFIX[kind])
    assert export(capfd, "run=%s" % run, "format=" + kind, "out=%s" % out, "policy=heuristic")[0] == 0
    about = read_metadata(out, kind)
    assert (about["task"], about["method"], about["policy"], about["seed"]) == ("Cartpole", "hepo", "pi_h", 1)
    assert about["joint_names"] == ["cartpole/slider_to_cart"]
    assert about["control_dt"] == pytest.approx(0.0166)
    (drive,) = about["action"]["groups"]
    assert (drive["command"], drive["unit"], drive["scale"], drive["mode"]) == ("joint effort", "N", 400.0, "absolute")
    slices = about["observation"]["slices"]
    assert [part["name"] for part in slices] == ["cart_pos", "cart_vel", "pole_angle", "pole_vel"]
    assert [part["unit"] for part in slices] == ["m", "m/s", "rad", "rad/s"]
    assert sum(part["size"] for part in slices) == about["observation"]["size"] == 4
    assert (about["iteration"], about["env_steps"], about["checkpoint"]) == (ITERATION, ENV_STEPS, "best.pt")
    assert re.fullmatch("[0-9a-f]{40}", about["commit"] or "0" * 40)
    # pi_h's two episodes of iteration 12 and the one of 10; iteration 13 came after the checkpoint
    assert about["J"]["mean"] == pytest.approx((2 * 4.0 + 1 * 0.0) / 3)
    assert about["J"]["episodes"] == 3


def test_j_is_of_the_last_hundred_episodes(capfd, tmp_path, cartpole):
    run, _ = cartpole
    out = tmp_path / "file.onnx"
    assert export(capfd, "run=%s" % run, "out=%s" % out)[0] == 0
    assert read_metadata(out, "onnx")["J"]["mean"] == pytest.approx((60 * 3.0 + 50 * 2.0) / 110)


def test_onnx_names_its_input_and_output(capfd, tmp_path, cartpole):
    import onnxruntime

    out = tmp_path / "file.onnx"
    assert export(capfd, "run=%s" % cartpole[0], "out=%s" % out)[0] == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("observation", ["N", 4], "tensor(float)")
    assert (taken.name, taken.shape) == ("action", ["N", 1])


# ---- rl-games -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [["task=Ant", "algo=hepo"], ["task=AllegroHand", "algo=hepo", "budget=cpu"]])
def test_rl_games_own_player_acts_and_judges_alike(capfd, tmp_path, overrides):
    """rl-games' Runner makes its PpoPlayerContinuous, which restores the file; nothing of this package in between."""
    import gymnasium
    from rl_games.algos_torch.players import PpoPlayerContinuous
    from rl_games.torch_runner import Runner

    run, policies = make_run(tmp_path, *overrides)
    out = tmp_path / "file.pth"
    assert export(capfd, "run=%s" % run, "format=rl_games", "out=%s" % out)[0] == 0
    saved = torch.load(out, weights_only=True)
    about, params = saved["metadata"], saved["metadata"]["rl_games"]
    size, actions = about["observation"]["size"], about["action"]["size"]
    one = np.ones(actions, np.float32)
    box = np.full(size, np.inf, np.float32)
    info = {"observation_space": gymnasium.spaces.Box(-box, box), "action_space": gymnasium.spaces.Box(-one, one)}
    more = {"env_name": "none", "env_info": info, "device_name": "cpu", "reward_shaper": {}, "name": "x"}
    runner = Runner()
    runner.load({"params": {**params, "seed": 1, "config": {**params["config"], **more}}})
    player = runner.create_player()
    assert type(player) is PpoPlayerContinuous
    player.restore(str(out))
    player.has_batch_dimension = True
    states = policies.net.num_states
    obs = (3.0 * torch.randn(1000, size + states, generator=torch.Generator().manual_seed(2))).clamp(-5.0, 5.0)
    expected = policies.act_deterministic(obs, 0).clamp(-1.0, 1.0)
    found = player.get_action(obs[:, :size], is_deterministic=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    without = player.model({"is_train": False, "obs": obs[:, :size], "rnn_states": None, "prev_actions": None})
    value = policies.values(obs.unsqueeze(0).expand(policies.num_policies, -1, -1))[0, :, :1]
    if states:
        value = policies.value_norm.mean[0, :1].float().expand(1000, 1)  # a critic of its own has no place
    mean, std = policies.value_norm.mean[0, 0].float(), policies.value_norm.std(0.0)[0, 0]
    value = value.clamp(mean - 5.0 * std, mean + 5.0 * std)  # rl-games bounds what it denormalises
    torch.testing.assert_close(without["values"], value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(player.model.a2c_network.sigma.detach(), policies.net.log_std[0].detach())
    # the normaliser matters: without it the mean actions are others
    player.model.running_mean_std.running_mean.zero_()
    player.model.running_mean_std.running_var.fill_(1.0)
    assert (player.get_action(obs[:, :size], is_deterministic=True) - expected).abs().max() > 0.1


# ---- what is refused ------------------------------------------------------------------------------------------------


def refused(capfd, tmp_path, arguments, *names):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = export(capfd, *arguments)
    assert code == 2, (out, err)
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert "Traceback" not in err
    assert "exported" not in out
    for name in names:
        assert name in err, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["run="]),
        (["runs/x"], ["'runs/x'", "key=value"]),
        (["run={run}", "polcy=pi"], ["'polcy'", "'policy'"]),
        (["run={run}", "format=onnx2"], ["'onnx2'", "'onnx'", "torchscript"]),
        (["run={run}", "format=ONNX"], ["'ONNX'", "'onnx'"]),
        (["run={run}", "format="], ["format=", "no value"]),
        (["run="], ["run=", "no value"]),
        (["run={run}", "run={run}"], ["run=", "twice"]),
        (["run={run}", "policy=pi_j"], ["'pi_j'", "pi, pi_h"]),
        (["run={run}", "policy=0"], ["'0'", "pi, pi_h"]),
        (["run={run}", "overwrite=perhaps"], ["overwrite", "true or false"]),
        (["run={run}", "trust=1"], ["trust", "true or false"]),
        (["run=no/such/run"], ["no/such/run"]),
        (["run={tmp}"], ["not a run folder"]),
        (["run={run}", "checkpoint=iteration_000007"], ["iteration_000007", "best"]),
        (["run={run}/checkpoints/best.pt", "checkpoint=last"], ["is a checkpoint already"]),
        (["run={stray}"], ["stray.pt", "no run folder"]),
        (["run={garbage}"], ["garbage.pt", "cannot load"]),
        (["run={run}", "out={tmp}/no/such/a.onnx"], ["no folder"]),
        (["run={run}", "out={tmp}/a.pth"], ["a.pth", ".onnx"]),
        (["run={run}", "format=torchscript", "out={tmp}/a.onnx"], ["a.onnx", ".ts"]),
        (["run={run}", "out={there}"], ["there.onnx", "overwrite=true"]),
        (["run={run}", "task=Ant"], ["task=Cartpole", "Ant"]),
        (["task=Push2D"], ["Push2D", "run="]),
        (["task=Nothing"], ["Nothing", "run="]),
        (["run={run}", "out=/proc/a.onnx"], ["/proc/a.onnx", "cannot be written"]),
    ],
)
def test_bad_input_is_one_sentence(capfd, tmp_path, cartpole, arguments, names):
    run, _ = cartpole
    stray, there, home = tmp_path / "stray.pt", tmp_path / "there.onnx", tmp_path / "copy"
    stray.write_bytes((run / "checkpoints" / "best.pt").read_bytes())
    there.write_bytes(b"mine")
    shutil.copytree(run, home)
    garbage = home / "checkpoints" / "garbage.pt"
    garbage.write_bytes(b"nothing")
    words = {"run": run, "tmp": tmp_path, "stray": stray, "there": there, "garbage": garbage}
    refused(capfd, tmp_path, [a.format(**words) for a in arguments], *names)
    assert there.read_bytes() == b"mine"


def test_an_older_file_is_replaced_only_on_request(capfd, tmp_path, cartpole):
    run = tmp_path / "run"
    shutil.copytree(cartpole[0], run)
    assert export(capfd, "run=%s" % run)[0] == 0
    assert (run / "pi.onnx").is_file()
    refused(capfd, tmp_path, ["run=%s" % run], "pi.onnx", "overwrite=true")
    assert export(capfd, "run=%s" % run, "overwrite=true")[0] == 0
    assert export(capfd, "run=%s" % run, "out=%s" % tmp_path)[0] == 0  # a folder: under a name that tells them apart
    assert (tmp_path / "Cartpole_pi.onnx").is_file()


def test_a_file_that_acts_otherwise_is_not_written(capfd, tmp_path, cartpole, monkeypatch):
    """One weight in a million is wrong, or a number is none."""
    module = importlib.import_module("hepo_isaac.runs.export.onnx_file")
    right = module.write

    def wrong(by, actor, policies, policy, about):
        actor.layers[-1][1][0] += by
        return right(actor, policies, policy, about)

    for by in (3e-5, float("nan")):
        monkeypatch.setattr(module, "write", lambda *a, by=by: wrong(by, *a))
        target = "out=%s" % (tmp_path / "a.onnx")
        refused(capfd, tmp_path, ["run=%s" % cartpole[0], target], "differs from the policy")


def test_weights_that_are_no_numbers_are_refused(capfd, tmp_path):
    def spoil(policies):
        with torch.no_grad():
            policies.net.flat[0, 3] = float("nan")

    run, _ = make_run(tmp_path, "task=Push2D", "algo=hepo", change=spoil)
    refused(capfd, tmp_path, ["run=%s" % run], "not finite")
    assert export(capfd, "run=%s" % run, "policy=pi_h", "out=%s" % (tmp_path / "h.onnx"))[0] == 0


def test_what_is_not_installed_is_said(capfd, tmp_path, cartpole, monkeypatch):
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            names = ("%s is not installed" % package, "pip install 'hepo-isaac[export]'")
            refused(capfd, tmp_path, ["run=%s" % cartpole[0], "out=%s" % (tmp_path / "a.onnx")], *names)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export(capfd, "run=%s" % cartpole[0], "format=torchscript", "out=%s" % (tmp_path / "a.ts"))[0] == 0


def test_a_strangers_code_is_not_run(capfd, tmp_path, cartpole):
    run = tmp_path / "stranger"
    shutil.copytree(cartpole[0], run)
    (run / SIGNATURE).unlink()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("heuristic: default", "heuristic: os:getcwd"))
    refused(capfd, tmp_path, ["run=%s" % run], "trust=true")


def test_a_checkpoint_of_another_network_is_refused(capfd, tmp_path, cartpole):
    run = tmp_path / "other"
    shutil.copytree(cartpole[0], run)
    config = run / "config.yaml"
    config.write_text(re.sub(r"units:\n(\s+)- \d+", r"units:\n\g<1>- 5", config.read_text(), count=1))
    refused(capfd, tmp_path, ["run=%s" % run], "the checkpoint does not fit")
