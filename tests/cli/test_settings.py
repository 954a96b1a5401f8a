"""What each setting is to a run: one table, and everything that asks reads it."""

from __future__ import annotations

import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.overrides import compose, known_keys
from hepo_isaac.runs import launch
from hepo_isaac.runs.compare.data import flatten
from hepo_isaac.runs.sweep import twins
from hepo_isaac.settings import ROLES, changeable, identifying, role

SMALL = ["task=Push2D", "algo=hepo", "num_envs=4"]


def settled(*overrides):
    return launch.prepare(compose([*SMALL, *overrides]), [*SMALL, *overrides])


def test_every_setting_has_a_role():
    """A new key of config.yaml must be given one: add it to hepo_isaac/settings.py."""
    cfg = compose(SMALL)
    assert {key.split(".")[0] for key in ROLES} == set(map(str, cfg))
    # dotted entries are settings of some engine, of tasks from a file, or of all runs
    known = set(known_keys(cfg)) | {"sim.threads", "task.source"}
    assert {key for key in ROLES if "." in key} <= known


def test_a_key_has_the_role_of_its_group():
    assert role("train.gamma") == ROLES["train"]
    assert role("train.max_iterations") == ROLES["train.max_iterations"] != ROLES["train"]
    assert role("wandb.project") == ROLES["wandb"]
    assert role("unheard.of").identity
    assert not role("unheard.of").at_resume


@pytest.mark.parametrize("override", ["plot=false", "video=true", "video_every=7", "wandb.enabled=true"])
def test_how_a_run_is_recorded_makes_no_other_run_for_anybody(override):
    one, other = settled(), settled(override)
    assert one != other
    assert twins.identity(one) == twins.identity(other)
    assert flatten(identifying(one)) == flatten(identifying(other))  # what a comparison reads
    assert launch.resumed_config(compose(SMALL), [override]) is not None


@pytest.mark.parametrize("override", ["train.gamma=0.5", "seed=3", "algo.share_data=none", "num_envs=8"])
def test_what_is_learned_makes_another_run_for_everybody(override):
    one, other = settled(), settled(override)
    assert twins.identity(one) != twins.identity(other)
    assert flatten(identifying(one)) != flatten(identifying(other))
    with pytest.raises(UserError, match="resume continues a run with its own settings"):
        launch.resumed_config(compose(SMALL), [override])


def test_what_a_resume_may_change():
    assert changeable() == [
        "train.max_iterations",
        "train.fused",
        "evaluation_episodes",
        "torch_threads",
        "update_threads",
        "checkpoint_every",
        "keep_checkpoints",
        "video",
        "video_every",
        "tensorboard",
        "plot",
        "wandb",
    ]


def test_the_gpus_number_the_threads_and_nulls_do_not_count():
    base = {"device": "cuda:0", "sim": {"name": "x", "threads": 0}, "algo": {"threshold": None, "units": [1, 2]}}
    same = {"device": "cuda:1", "sim": {"name": "x", "threads": 4}, "algo": {"units": [1, 2]}}
    assert identifying(base) == identifying(same) == {"device": "cuda", "sim": {"name": "x"}, "algo": {"units": [1, 2]}}
