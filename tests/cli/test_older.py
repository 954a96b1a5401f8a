"""Run folders from before every key was in config.yaml: read as what was meant, resumed, evaluated, compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from hepo_isaac import cli
from hepo_isaac.errors import UserError
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.older import BEFORE, GIVEN, REMOVED, completed
from hepo_isaac.runs import launch
from hepo_isaac.runs.compare.data import collect
from hepo_isaac.runs.record.folder import INTERRUPTED, RunFolder
from hepo_isaac.runs.sweep import twins
from hepo_isaac.schema import defaults

# What config.yaml of such runs said of their methods: what their files listed, nothing more.
MULTIPLIER = {
    "init": 0.0, "rule": "adam", "lr": 0.01, "minimum": 0.0, "maximum": 100.0, "allow_negative": False,
    "median_window": 8, "median": "midpoint", "gradient_clip": 1.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
}  # fmt: skip
SAID = {
    "ppo_h": {"name": "ppo_h", "objectives": ["heuristic"]},
    "hepo_alternating": {
        "name": "hepo_alternating", "objectives": ["constrained", "heuristic"], "constraint": "reference",
        "share_data": "both", "heuristic_weight": 1.0, "mixing": "ratio", "contrast": "raw_gae",
        "collection": "alternating", "dual_clip": 3.0, "whitening": "owner", "timeout_bootstrap": "final_obs",
        "multiplier": MULTIPLIER,
    },
}  # fmt: skip
# Defaults of that time, all of them: a default that changes from here on must go into older.BEFORE.
THEN = {
    "algo": {
        "name": None, "objectives": ["heuristic"], "heuristic_weight": 1.0, "constraint": "none", "threshold": None,
        "mixing": "ratio", "contrast": "raw_gae", "contrast_after_update": False, "collection": "halves",
        "switching": "alternate", "max_stage_iterations": 16, "share_data": "none", "foreign_advantage": "owner",
        "off_policy_fraction": 0.5, "dual_clip": 3.0, "whitening": "owner", "critic_data": "own",
        "minibatch_order": "stratified", "timeout_bootstrap": "final_obs", "frozen_reference": None,
        "reference_noise": 0.0, "shares": [], "common_start": False, "ratio_anchor": "behaviour", "partner_pull": 0.0,
        "references": {
            "window_episodes": 64, "z": 2.0, "projection": True, "factor": 2.0, "maximum": 100.0, "reseed_windows": 2,
        },
        "shaping": {
            "kind": "none", "potential": "immediate", "potential_scale": 1.0, "horizon_initial": 0.95,
            "horizon_rate": 1.0, "schedule": "tanh", "annealing": "none", "annealing_fraction": 0.5,
        },
        "multiplier": {
            **{k: v for k, v in MULTIPLIER.items() if k not in ("beta1", "beta2", "eps")},
            "z": 2.0, "kp": 1.0, "ki": 0.1, "kd": 0.0,
        },
    },
    "train": {
        "gamma": 0.99, "tau": 0.95, "e_clip": 0.2, "clip_value": True, "critic_coef": 4.0, "entropy_coef": 0.0,
        "bounds_loss_coef": 1e-4, "grad_norm": 1.0, "learning_rate": 5e-4, "lr_schedule": "mini_epoch",
        "kl_threshold": 0.008, "min_lr": 1e-6, "max_lr": 1e-2, "normalize_input": True, "max_bad_fraction": 0.01,
        "value_bootstrap": True, "value_target_clip": 5.0, "schedule_iterations": None,
        "graph_update": True, "fused": False, "network": {"activation": "elu", "critic_units": []},
    },
}  # fmt: skip
SMALL = ["task=Push2D", "num_envs=4", "train.mini_epochs=1", "torch_threads=1", "tensorboard=false", "plot=false"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def newest(algo):
    return sorted(Path("runs/Push2D", algo).iterdir(), key=lambda p: p.stat().st_mtime_ns)[-1]


def aged(algo, iterations, *overrides):
    """A run as an earlier version left it."""
    given = [*SMALL, "algo=" + algo, "train.max_iterations=%d" % iterations, "skip_finished=false", *overrides]
    assert launch.main(given) == 0
    folder = newest(algo)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["algo"] = dict(SAID[algo])
    del config["train"]["network"]["critic_units"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["agent"]["learner"]["flat"]


def test_a_missing_key_is_what_it_meant():
    for group, then in THEN.items():
        found = completed({group: {}})[group]
        found = {k: v for k, v in found.items() if k not in GIVEN}
        if group == "train":
            del found["network"]["units"]
        assert found == then
    # and the table holds only what is another default today
    for dotted, value in BEFORE.items():
        group, key = dotted.split(".")
        assert defaults()[group][key] != value


@pytest.mark.parametrize("algo", sorted(SAID))
def test_an_old_config_is_the_method_it_was(algo):
    then = completed({"algo": SAID[algo]})["algo"]
    merged = {**THEN["algo"], **{k: v for k, v in SAID[algo].items() if k != "multiplier"}}
    assert {k: v for k, v in then.items() if k != "multiplier"} == {
        k: v for k, v in merged.items() if k != "multiplier"
    }
    assert method_from_config(then).share_data == ("both" if algo == "hepo_alternating" else "none")


def test_a_removed_setting_is_refused_unless_it_changes_nothing():
    config = {"algo": {**SAID["hepo_alternating"], "unit_norm": False}}
    assert not {"unit_norm", "beta1"} & {*completed(config)["algo"], *completed(config)["algo"]["multiplier"]}
    assert all(value is not None for value in REMOVED.values())
    with pytest.raises(UserError, match=r"algo\.unit_norm=True is no setting any more"):
        completed({"algo": {**config["algo"], "unit_norm": True}})


@pytest.mark.parametrize("algo", sorted(SAID))
def test_an_old_run_resumes_evaluates_and_is_found(algo, capfd):
    assert launch.main([*SMALL, "algo=" + algo, "train.max_iterations=4", "seed=5"]) == 0
    whole = newest(algo)
    kept = Path("elsewhere")
    shutil.move(str(whole), str(kept))
    folder = aged(algo, 2, "seed=5")
    assert launch.main(["resume=%s" % folder, "train.max_iterations=4"]) == 0
    assert torch.equal(weights(folder), weights(kept))  # as if it had not been interrupted, nor made before

    capfd.readouterr()
    old = aged(algo, 2, "seed=6")
    assert cli.main(["eval", "run=%s" % old, "episodes=2"]) == 0
    assert "n=2" in capfd.readouterr().out
    # the same command finds it, and an interrupted one goes on
    given = [*SMALL, "algo=" + algo, "train.max_iterations=2", "seed=6", "skip_finished=true"]
    assert launch.main(given) == 0
    assert "this configuration has been trained in %s" % old in capfd.readouterr().out
    RunFolder(old).set_status(INTERRUPTED, iteration=1)
    (found,) = twins.twins(completed(yaml.safe_load((old / "config.yaml").read_text())))
    assert found.path == old


@pytest.mark.parametrize("algo", sorted(SAID))
def test_an_old_and_a_new_run_compare_as_repeats_of_one_arm(algo):
    aged(algo, 1, "seed=1")
    assert launch.main([*SMALL, "algo=" + algo, "train.max_iterations=1", "seed=2"]) == 0
    old, new = collect(["runs"]).runs
    assert {k: v for k, v in old.config.items() if k != "seed"} == {k: v for k, v in new.config.items() if k != "seed"}
