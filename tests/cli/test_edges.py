"""The smallest and the largest runs: right, or one sentence."""

from __future__ import annotations

import json

import pytest

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.metrics_csv import read_metrics

BASE = (
    "train.network.units=[8]", "evaluation_episodes=0", "plot=false", "tensorboard=false", "torch_threads=1",
    "device=cpu", "train.max_iterations=2",
)  # fmt: skip
RIGHT = [
    ("task=Push2D", "algo=ppo_h", "num_envs=1"),
    ("task=Push2D", "algo=hepo", "num_envs=2"),
    ("task=Push2D", "algo=hepo_plus", "num_envs=4"),
    ("task=Push2D", "algo=hepo", "num_envs=2", "train.horizon_length=1", "train.minibatch_size=2"),
    ("task=Push2D", "algo=hepo", "num_envs=20000", "train.horizon_length=2", "train.mini_epochs=1"),
    ("task=Push2D", "algo=hepo", "num_envs=4", "task.episode_length=1"),
    ("task=Push2D", "algo=hepo_plus", "num_envs=4", "task.episode_length=2"),
    ("task=FrankaCabinet", "algo=hepo", "num_envs=2", "task.episode_length=1"),
    ("task=Cartpole", "algo=eipo", "num_envs=2", "task.episode_length=2"),
    ("task=Push2D", "algo=hepo", "num_envs=4", "train.max_iterations=1", "evaluation_episodes=1"),
    ("task=Push2D", "algo=ppo_jh", "num_envs=3", "train.minibatch_size=48"),
]
REFUSED = [
    (("num_envs=3",), "num_envs=3 cannot be split over the 2 policies of algo=hepo"),
    (("algo=hepo_plus", "num_envs=6"), "use a multiple of 4, e.g. 4 or 8"),
    (("num_envs=0",), "num_envs"),
    (("train.max_iterations=0",), "train.max_iterations must be at least 1"),
    (("train.horizon_length=0",), "train.horizon_length must be at least 1"),
    (("task.episode_length=0",), "task.episode_length must be at least 1"),
    (("train.mini_epochs=0",), "train.mini_epochs must be at least 1"),
    (("train.minibatch_size=7",), "does not divide the batch"),
]


@pytest.mark.parametrize("overrides", RIGHT, ids=[" ".join(o) for o in RIGHT])
def test_a_run_of_any_size_is_right(capfd, tmp_path, overrides):
    code = launch.main([*BASE, *overrides, "run_root=%s" % tmp_path])
    assert code == 0, capfd.readouterr().err
    (summary,) = tmp_path.rglob("summary.json")
    found = json.loads(summary.read_text())
    columns = read_metrics(summary.parent / "metrics.csv")
    assert found["status"] == "finished" and len(columns["iteration"]) == found["iterations"]
    assert (columns["nonfinite"] == 0).all() and (columns["bad_worlds"] == 0).all()


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[" ".join(o) for o, _ in REFUSED])
def test_what_cannot_be_is_one_sentence(capfd, tmp_path, overrides, said):
    code = launch.main(["task=Push2D", "algo=hepo", *BASE, *overrides, "run_root=%s" % tmp_path])
    err = capfd.readouterr().err
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not list(tmp_path.rglob("config.yaml"))
