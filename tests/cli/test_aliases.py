"""What a user of Isaac Gym Envs types is accepted or answered, one test a row."""

from __future__ import annotations

import math

import pytest
from omegaconf import OmegaConf

from hepo_isaac.aliases import ALIASES, ANSWERS, GRANTED, translate
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import _parse, _values, check_setting, compose
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
    "wandb_project_name": "mine",
    "log_project_name": "mine",
    "track": "True",
    "train.params.network.mlp.activation": "tanh",
    "train.params.network.mlp.units": "[8, 4]",
}
KINDS = {bool: "False", int: "3", float: "0.25"}


def value_of(theirs, ours):
    """A value of the kind that the setting has."""
    if theirs in VALUES:
        return VALUES[theirs]
    kind = type(OmegaConf.select(DEFAULTS, ours))
    return KINDS.get(kind, "3")


DEFAULTS = compose(["task=Push2D"])


@pytest.mark.parametrize(("theirs", "ours"), ALIASES.items())
def test_a_name_of_the_same_meaning_is_accepted(theirs, ours):
    value = value_of(theirs, ours)
    (translated,) = translate(["%s=%s" % (theirs, value)])
    assert translated == "%s=%s" % (ours, value)
    (override,) = _parse([translated])
    changed = DEFAULTS.copy()
    check_setting(changed, ours, _values(override))
    OmegaConf.update(changed, ours, _values(override)[0])
    assert str(OmegaConf.select(changed, ours)) == value


@pytest.mark.parametrize(
    ("typed", "read"), [(".inf", [math.inf]), ("-.INF", [-math.inf]), ("5.0,.inf,.inf", [5.0, math.inf, math.inf])]
)
def test_infinity_may_be_written_as_in_our_files(typed, read):
    (translated,) = translate(["algo.dual_clip=" + typed])
    assert [float(word) for word in translated.partition("=")[2].split(",")] == read
    assert translate(["heuristic=.information", "x.inf"]) == ["heuristic=.information", "x.inf"]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GRANTED.items() for value in values])
def test_what_is_so_anyway_is_taken(name, value):
    assert translate(["task=Ant", "%s=%s" % (name, value.title())]) == ["task=Ant"]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_name_without_a_counterpart_is_answered_in_one_line(name, capfd):
    assert launch.main(["task=Push2D", name + "=gpu"]) == 2
    _, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert "%s=gpu is no setting here: %s" % (name, ANSWERS[name]) in err


@pytest.mark.parametrize("sign", ["+", "++"])
def test_a_sign_before_a_name_changes_nothing_of_that(sign):
    given = ["task=Ant", sign + "headless=True", sign + "max_iterations=12"]
    assert translate(given) == ["task=Ant", "train.max_iterations=12"]
    with pytest.raises(UserError, match="hydra.run.dir=x is no setting here: a run writes <run_root>"):
        translate(["task=Ant", sign + "hydra.run.dir=x"])


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


# What people type who come from elsewhere: arguments, and words that the answer has; none where it is accepted.
TYPED = [
    # Isaac Gym Envs
    (["headless=True"], []),
    (["headless=False"], ["headless=False", "no window"]),
    (["experiment=mine"], ["algo.name=<label>"]),
    (["multi_gpu=True"], ["torchrun"]),
    (["wandb_activate=True"], []),
    (["wandb_name=mine"], ["wandb.group"]),
    (["wandb_logcode_dir=."], ["not needed here, because"]),
    (["pipeline=gpu"], ["device=cuda:0"]),
    (["force_render=True"], ["no window"]),
    (["force_render=False"], []),
    (["max_iterations=5"], []),
    (["num_threads=4"], ["sim.threads=<number>"]),
    (["num_subscenes=4"], ["not needed here, because"]),
    (["physics_engine=physx"], ["sim=isaacgym"]),
    (["solver_type=1"], ["task.physics.options.isaacgym"]),
    (["graphics_device_id=0"], ["video=true"]),
    (["capture_video=True"], []),
    (["capture_video_freq=1464"], ["video=true"]),
    (["torch_deterministic=True"], ["not needed here, because"]),
    (["sigma=0.3"], ["learned"]),
    (["pbt=ppo"], ["-m"]),
    (["train=AntPPO"], ["train must be a group"]),
    (["test=True"], ["checkpoint="]),
    (["checkpoint=runs/x.pth"], ["test=true", "resume="]),
    (["task.env.numEnvs=64"], []),
    (["task.sim.dt=0.01"], ["task.physics.control_dt"]),
    (["task.task.randomize=True"], ["no such switch"]),
    (["train.params.config.max_epochs=5"], []),
    # rl-games
    (["max_epochs=5"], []),
    (["--track"], []),
    (["--file", "ppo.yaml"], ["cfg/"]),
    (["--play"], ["hepo-isaac play"]),
    (["--wandb-project-name", "mine"], []),
    (["train_dir=x"], ["run_root=<folder>"]),
    # Isaac Lab
    (["--headless", "--num_envs", "64", "--seed", "1"], []),
    (["--max_iterations", "5"], []),
    (["--livestream", "2"], ["hepo-isaac view"]),
    (["--livestream=0"], []),
    (["--enable_cameras"], ["video=true"]),
    (["--distributed"], ["torchrun"]),
    (["--video"], []),
    (["--video_length", "200"], ["hepo-isaac play"]),
    (["--video_interval", "200"], ["hepo-isaac play"]),
    (["--device", "cpu"], []),
    (["--cpu"], ["device=cpu"]),
    (["--agent", "rl_games_cfg_entry_point"], ["algo=<name>"]),
    (["agent=ppo"], ["algo=<name>"]),
    (["--kit_args", "x"], ["Omniverse"]),
    (["--rendering_mode", "performance"], ["not needed here, because"]),
    (["--disable_fabric"], ["USD"]),
    (["--use_pretrained_checkpoint"], ["hepo-isaac policies"]),
    (["--real-time"], ["hepo-isaac view"]),
    (["--task", "Isaac-Ant-v0"], ["unknown task 'Isaac-Ant-v0'", "'Ant'"]),
    (["--load_run", "x"], ["resume=<run folder>"]),
    (["--run_name", "x"], ["algo.name=<label>"]),
    (["--logger", "wandb"], ["wandb.enabled=true"]),
    (["env.scene.num_envs=64"], []),
    (["env.episode_length_s=5"], ["task.episode_length=<steps>"]),
    (["env.decimation=2"], ["task.physics.substeps"]),
    (["agent.max_iterations=5"], []),
    # skrl
    (["--algorithm", "PPO"], ["algo=<name>"]),
    (["--ml_framework", "torch"], []),
    (["--ml_framework", "jax"], ["torch, always"]),
    (["agent.agent.rollouts=16"], []),
    (["agent.agent.mini_batches=4"], ["train.minibatch_size="]),
    (["agent.trainer.timesteps=1000"], ["train.max_iterations="]),
]


@pytest.mark.parametrize(("typed", "words"), TYPED, ids=[" ".join(t) for t, _ in TYPED])
def test_what_people_type(capfd, monkeypatch, typed, words):
    ran = []
    monkeypatch.setattr(launch, "_hydra", lambda argv: ran.append(argv) or 0)
    task = [] if "--task" in typed else ["--task", "Push2D"]
    code, err = launch.typed([*task, *typed]), capfd.readouterr().err
    if not words:
        assert (code, err, len(ran)) == (0, "", 1)
        assert all("=" in a and not a.startswith("-") for a in ran[0]) and "task=Push2D" in ran[0]
    else:
        assert (code, ran, err.count("\n")) == (2, [], 1), err
        assert [word for word in words if word not in err] == [], err


def test_all_names_are_answered_at_once(capfd):
    typed = [
        "--task",
        "Ant",
        "pipeline=gpu",
        "foo=1",
        "max_iterations=4",
        "num_env=3",
        "--livestream",
        "2",
        "gamma=0.9",
    ]
    assert launch.typed(typed) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: 5 names of this command line")
    for word in ("pipeline=gpu", "'foo'", "'num_envs'", "livestream=2", "'train.gamma'"):
        assert word in err
    assert "max_iterations" not in err


def test_options_may_stand_anywhere(monkeypatch):
    monkeypatch.setattr(launch, "_sweep", lambda argv, overrides: argv)
    for typed in (
        ["-m", "task=Push2D", "seed=1,2"],
        ["task=Push2D", "-m", "seed=1,2"],
        ["task=Push2D", "seed=1,2", "-m"],
    ):
        assert launch._main(typed) == ["-m", "task=Push2D", "seed=1,2"]


def test_a_setting_is_given_once(capfd):
    for typed in (["num_envs=4", "num_envs=8"], ["max_iterations=4", "--max_epochs", "8"]):
        assert launch.typed(["task=Push2D", *typed]) == 2
        err = capfd.readouterr().err
        assert "twice" in err and typed[0] in err and "8" in err
    # a program may put its own behind another's
    assert translate(["num_envs=4", "num_envs=8"]) == ["num_envs=4", "num_envs=8"]
