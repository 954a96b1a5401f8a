"""The command line is judged before Hydra sees it: names with the nearest valid ones, types, groups."""

from __future__ import annotations

import shutil

import pytest

from hepo_isaac import overrides as command_line
from hepo_isaac.errors import UserError
from hepo_isaac.locate import cfg_dir
from hepo_isaac.overrides import check_overrides, compose, known_keys


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=FrankaCabinet", "algo=hepo", "num_envs=64", "num_envs=auto", "seed=1,2,3"],
        ["algo=ppo_h,hepo", "seed=range(1,4)", "train.learning_rate=interval(0.1,1)"],
        ["train.gamma=1", "train.network.units=[64,64]", "wandb.entity=me", "wandb.project='two words'"],
        ["resume=null", "checkpoint='runs/a=b'", "heuristic=package.module:function", "device=cuda:1"],
        ["++train.gamma=0.9", "hydra.verbose=true", "sim=mujoco_batch", "sim.threads=1"],
        ["algo.multiplier.init=0", "task.physics.substeps=4", "train.network={units: [32], activation: elu}"],
    ],
)
def test_accepted(overrides):
    check_overrides(overrides)


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("task=FrankaCabnet", ["unknown task 'FrankaCabnet'", "did you mean 'FrankaCabinet'"]),
        ("algo=hep", ["unknown algo 'hep'", "'hepo'"]),
        ("algo=hepo,ppo_x", ["unknown algo 'ppo_x'", "'ppo_"]),
        ("sim=mujoco", ["unknown sim 'mujoco'", "'mujoco_warp'", "'mujoco_batch'"]),
        ("budget=papers", ["unknown budget 'papers'", "'paper'"]),
        ("num_env=4", ["unknown setting 'num_env'", "did you mean 'num_envs'"]),
        ("train.gama=0.9", ["unknown setting 'train.gama'", "did you mean 'train.gamma'"]),
        ("gamma=0.9", ["did you mean 'train.gamma'"]),
        ("train.network.gamma=0.9", ["did you mean 'train.gamma'"]),
        ("num_envs=abc", ["num_envs must be a whole number or auto, got abc"]),
        ("num_envs=64.5", ["num_envs", "64.5"]),
        ("num_envs=true", ["num_envs", "True"]),
        ("num_envs=[1]", ["num_envs"]),
        ("seed=1,x", ["seed must be a whole number, got x"]),
        ("test=maybe", ["test must be true or false"]),
        ("train.gamma=high", ["train.gamma must be a number"]),
        ("train.network.units=64", ["train.network.units must be a list"]),
        ("train=3", ["train must be a group of settings"]),
        ("num_envs", ["cannot read 'num_envs'", "key=value"]),
        ("seed=[1", ["cannot read 'seed=[1'"]),
        ("resume=a=b", ["cannot read", "quoted"]),
    ],
)
def test_refused(override, names):
    with pytest.raises(UserError) as caught:
        check_overrides(["task=FrankaCabinet", override] if not override.startswith("task") else [override])
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message


def test_a_key_of_one_algo_is_a_key_of_all():
    check_overrides(["algo=hepo,ppo_h", "algo.multiplier.lr=0.1"])
    with pytest.raises(UserError, match="unknown setting 'algo.multiplier.rate'"):
        check_overrides(["algo=hepo,ppo_h", "algo.multiplier.rate=0.1"])


def test_a_key_that_there_is_takes_no_plus():
    check_overrides(["++algo.reference_noise=0.1"])
    with pytest.raises(UserError, match=r"unknown setting 'new\.key'"):
        check_overrides(["+new.key=1"])
    with pytest.raises(UserError, match=r"takes no plus: algo\.reference_noise=<value>"):
        check_overrides(["+algo.reference_noise=0.1"])


def test_every_setting_is_known_by_its_dotted_name():
    keys = known_keys(compose([]))
    assert {"seed", "train", "train.network.units", "wandb.mode", "resume"} <= set(keys)
    assert not any(key.startswith("hydra") for key in keys)


def test_what_was_composed_before_is_a_copy_and_follows_the_files(tmp_path, monkeypatch):
    first = compose(["task=Push2D"])
    first.task.episode_length = 7
    assert compose(["task=Push2D"]).task.episode_length == 100
    shutil.copytree(cfg_dir(), tmp_path / "cfg")
    monkeypatch.setattr(command_line, "cfg_dir", lambda: tmp_path / "cfg")
    file = tmp_path / "cfg" / "task" / "Push2D.yaml"
    file.write_text(file.read_text().replace("episode_length: 100", "episode_length: 55"))
    assert compose(["task=Push2D"]).task.episode_length == 55
