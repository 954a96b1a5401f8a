"""What a user of Isaac Gym Envs types is accepted or answered, one test a row."""

from __future__ import annotations

import math

import pytest
from omegaconf import OmegaConf

from hepo_isaac.aliases import ALIASES, ANSWERS, GRANTED, translate
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.runs import launch

VALUES = {
    "max_iterations": "7",
    "minibatch_size": "64",
    "wandb_activate": "True",
    "wandb_project": "mine",
    "wandb_entity": "me",
    "wandb_group": "ours",
    "capture_video": "True",
    "sim_device": "cuda:0",
    "rl_device": "cpu",
}


@pytest.mark.parametrize(("theirs", "ours"), ALIASES.items())
def test_a_name_of_the_same_meaning_is_accepted(theirs, ours):
    (translated,) = translate(["%s=%s" % (theirs, VALUES[theirs])])
    assert translated == "%s=%s" % (ours, VALUES[theirs])
    check_overrides([translated])
    found = OmegaConf.select(compose([translated]), ours)
    assert str(found) == VALUES[theirs]


@pytest.mark.parametrize(
    ("typed", "read"), [(".inf", [math.inf]), ("-.INF", [-math.inf]), ("5.0,.inf,.inf", [5.0, math.inf, math.inf])]
)
def test_infinity_may_be_written_as_in_our_files(typed, read):
    (translated,) = translate(["algo.dual_clip=" + typed])
    check_overrides([translated])
    assert [float(word) for word in translated.partition("=")[2].split(",")] == read
    assert translate(["heuristic=.information", "x.inf"]) == ["heuristic=.information", "x.inf"]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GRANTED.items() for value in values])
def test_what_is_so_anyway_is_taken(name, value):
    assert translate(["task=Ant", "%s=%s" % (name, value.title())]) == ["task=Ant"]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_name_without_a_counterpart_is_answered_in_one_line(name, capfd):
    assert launch.main(["task=Ant", name + "=gpu"]) == 2
    _, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert "%s=gpu is no setting here: %s" % (name, ANSWERS[name]) in err


def test_two_devices_that_agree_are_one():
    assert translate(["sim_device=cuda:0", "rl_device=cuda:0"]) == ["device=cuda:0"]
    assert translate(["device=cpu", "rl_device=cpu"]) == ["device=cpu"]
    with pytest.raises(UserError, match="sim_device=cuda:0 and rl_device=cpu: physics and learning share one device"):
        translate(["sim_device=cuda:0", "rl_device=cpu"])
    with pytest.raises(UserError, match="share one device"):
        translate(["device=cpu", "sim_device=cuda:0"])


def test_everything_else_is_left_alone():
    given = ["-m", "task=Ant,Anymal", "+x.y=1", "~z", "train.max_iterations=3", "num_envs=8", "heuristic=a:b"]
    assert translate(given) == given


def test_aliases_reach_every_way_of_starting(capfd):
    assert launch.main(["--cfg", "job", "task=Push2D", "max_iterations=12", "headless=True"]) == 0
    assert "max_iterations: 12" in capfd.readouterr().out
    assert launch.main(["task=Push2D", "max_iterations=many"]) == 2
    assert "train.max_iterations must be a whole number" in capfd.readouterr().err
    assert launch.main(["resume=no/such/run", "max_iterations=12"]) == 2
    assert "no/such/run" in capfd.readouterr().err
