"""resolve, validate and check_machine: what a command line becomes, and every mistake refused with its name."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping

import pytest
import torch
from omegaconf import OmegaConf

from hepo_isaac.agents.config import nearest_divisors
from hepo_isaac.config import check_machine, override_keys, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.locate import group_names, task_names
from hepo_isaac.overrides import compose
from hepo_isaac.sim import registry
from hepo_isaac.sim.isaacgym import install as isaacgym_install
from tests.tasks.sampled import CHOSEN, OTHERS, sampled


def settle(*overrides, cuda=False):
    return resolve(compose(overrides), overrides, cuda)


def refusal(*overrides, cuda=False):
    """The message with which an otherwise well-formed command line is refused."""

    def judge():
        cfg = settle(*overrides, cuda=cuda)
        check_machine(cfg, cuda)
        validate(cfg)

    with pytest.raises(UserError) as caught:
        judge()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Dexterous tasks share one file: one of them in the default run.
SLOW = {*OTHERS, *CHOSEN[1:]}


# ---- resolve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "algo"),
    [pytest.param(name, "hepo", marks=[pytest.mark.slow] if name in SLOW else []) for name in task_names()]
    + [(task, algo) for task in ("FrankaCabinet", "Push2D") for algo in group_names("algo") if algo != "hepo"],
)
def test_every_task_and_algo_has_both_budgets_and_is_valid(task, algo):
    for cuda, budget, physics, device in (
        (False, "demo", "mujoco_batch", "cpu"),
        (True, "paper", "mujoco_warp", "cuda:0"),
    ):
        cfg = settle("task=" + task, "algo=" + algo, cuda=cuda)
        validate(cfg)
        assert (cfg.task.name, cfg.algo.name) == (task, algo)
        assert (cfg.budget.name, cfg.device) == (budget, device)
        assert cfg.sim.name == ("analytic" if cfg.task.engines == ["analytic"] else physics)


@pytest.mark.parametrize("task", sampled(task_names(), CHOSEN[:1]))
def test_a_budget_overrides_task_and_algo(task):
    budgets = compose(["task=" + task]).task.budgets
    for budget in ("paper", "demo"):
        wanted, cfg = budgets[budget], settle("task=" + task, "budget=" + budget)
        assert cfg.num_envs == wanted.num_envs
        for key, value in wanted.get("train", {}).items():
            if isinstance(value, Mapping):  # a budget may set a part of a group
                assert {k: cfg.train[key][k] for k in value} == dict(value)
            else:
                assert cfg.train[key] == value
        assert "budgets" not in cfg.task


def test_the_command_line_overrides_the_budget():
    cfg = settle("budget=demo", "num_envs=64", "train.max_iterations=7", "train.learning_rate=1")
    assert (cfg.num_envs, cfg.train.max_iterations, cfg.train.learning_rate) == (64, 7, 1)


def test_a_value_that_only_looks_like_the_default_still_beats_the_budget():
    default = compose([]).train.max_iterations
    assert compose([]).task.budgets.demo.train.max_iterations != default
    assert settle("budget=demo", "train.max_iterations=%d" % default).train.max_iterations == default


def test_a_budget_may_only_set_what_exists():
    cfg = compose([])
    OmegaConf.set_struct(cfg, False)
    cfg.task.budgets.demo.train.gama = 0.5
    with pytest.raises(UserError, match=r"task\.budgets\.demo"):
        resolve(cfg, [], False)


def test_resolve_leaves_its_argument_alone():
    cfg = compose([])
    before = OmegaConf.to_yaml(cfg)
    resolve(cfg, [], False)
    assert OmegaConf.to_yaml(cfg) == before


def test_resolving_twice_changes_nothing():
    once = settle("num_envs=64")
    cfg = OmegaConf.create(OmegaConf.to_container(once))
    cfg.task.budgets = {once.budget.name: {"num_envs": 64}}
    again = resolve(cfg, [], False)
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(once, resolve=True)


@pytest.mark.parametrize(
    ("overrides", "cuda", "engine", "device", "budget"),
    [
        (["device=cpu"], True, "mujoco_batch", "cpu", "demo"),
        (["sim=mujoco_batch"], True, "mujoco_batch", "cpu", "demo"),
        (["device=cuda"], True, "mujoco_warp", "cuda:0", "paper"),
        (["device=cuda:1"], True, "mujoco_warp", "cuda:1", "paper"),
        (["budget=paper"], False, "mujoco_batch", "cpu", "paper"),
        (["sim=isaacgym"], True, "isaacgym", "cuda:0", "paper"),
        (["sim=isaacgym"], False, "isaacgym", "cuda:0", "paper"),  # which check_machine refuses
        (["sim=isaacgym", "device=cpu"], False, "isaacgym", "cpu", "demo"),
    ],
)
def test_engine_device_and_budget_agree(overrides, cuda, engine, device, budget):
    cfg = settle(*overrides, cuda=cuda)
    assert (cfg.sim.name, cfg.device, cfg.budget.name) == (engine, device, budget)


def test_options_on_sim_auto_reach_the_engine_that_has_them():
    assert settle("sim.threads=3").sim.threads == 3
    assert "threads" not in settle(cuda=True).sim
    assert "mujoco_warp" in refusal("sim.threads=3", cuda=True)


def test_a_minibatch_nobody_typed_follows_the_number_of_envs():
    cfg = settle("num_envs=100")
    validate(cfg)
    assert (100 * cfg.train.horizon_length) % cfg.train.minibatch_size == 0


def test_automatic_threads_and_heuristic_are_settled():
    cfg = settle()
    assert isinstance(cfg.torch_threads, int)
    assert cfg.torch_threads >= 1
    assert cfg.heuristic != "auto"
    assert cfg.task.heuristic == cfg.heuristic


def test_override_keys():
    given = ["task=A", "+x.y=1", "~z", "hydra.verbose=true", "train.gamma=0.9", "num_envs=4"]
    assert override_keys(given) == ["x.y", "z", "train.gamma", "num_envs"]


def test_nearest_divisors_fit():
    assert nearest_divisors(512, 100, 1) == [128, 64]
    assert all(512 % d == 0 and d % 2 == 0 for d in nearest_divisors(512, 3, 2))
    assert nearest_divisors(6, 3, 2) == [2, 6]


# ---- validate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["num_envs=511"], ["num_envs=511", "510", "512", "hepo"]),
        (["num_envs=0"], ["num_envs", "at least 1"]),
        (["num_envs=-4"], ["num_envs", "at least 1"]),
        (["seed=-1"], ["seed"]),
        (["train.minibatch_size=1000", "num_envs=64"], ["train.minibatch_size=1000", "64 * 16 = 1024", "1024", "512"]),
        (["train.minibatch_size=1", "num_envs=64"], ["2 policies", "2"]),
        (["train.max_iterations=0"], ["train.max_iterations"]),
        (["train.learning_rate=-1"], ["train.learning_rate", "positive"]),
        (["train.learning_rate=nan"], ["train.learning_rate"]),
        (["train.gamma=1.1"], ["train.gamma", "between 0 and 1"]),
        (["train.min_lr=1"], ["train.min_lr=1", "train.max_lr"]),
        (["train.bounds_loss_coef=-1"], ["train.bounds_loss_coef"]),
        (["train.network.units=[]"], ["train.network.units"]),
        (["train.network.units=[64,-1]"], ["train.network.units"]),
        (["train.lr_schedule=sometimes"], ["lr_schedule", "sometimes"]),
        (["algo.multiplier.init=-0.5"], ["algo.multiplier.init", "-0.5", "negative"]),
        (["algo.multiplier.minimum=-0.99"], ["algo.multiplier.minimum", "negative"]),
        (["algo.multiplier.lr=-1"], ["algo.multiplier.lr"]),
        (["algo.contrast=guess"], ["contrast", "guess"]),
        (["heuristic=defualt"], ["heuristic", "defualt", "did you mean 'default'"]),
        (["heuristic=no_such_module:f"], ["no_such_module"]),
        (["heuristic=os.path:no_such_function"], ["no_such_function"]),
        (["heuristic=os:sep"], ["os:sep", "function"]),
        (["sim.threads=-1"], ["sim.threads"]),
        (["wandb.mode=onlin"], ["wandb.mode", "online"]),
        (["test=true"], ["checkpoint="]),
        (["checkpoint_every=0"], ["checkpoint_every"]),
        (["eval.episodes=0"], ["eval.episodes"]),
    ],
)
def test_refused_values(overrides, names):
    message = refusal(*overrides)
    for name in names:
        assert name in message


def test_one_policy_takes_an_odd_number_of_envs():
    validate(settle("algo=ppo_h", "num_envs=511"))


def test_a_task_refuses_an_engine_it_does_not_support(monkeypatch):
    cfg = settle("sim=isaacgym")
    cfg.task.engines = ["mujoco_batch"]
    with pytest.raises(UserError, match=r"does not run on sim=isaacgym; it runs on: mujoco_batch"):
        validate(cfg)


def test_a_users_heuristic_is_imported(monkeypatch):
    module = types.ModuleType("users_heuristics")
    module.lazy = lambda state: torch.zeros(1)
    monkeypatch.setitem(sys.modules, "users_heuristics", module)
    cfg = settle("heuristic=users_heuristics:lazy")
    validate(cfg)
    assert cfg.task.heuristic == "users_heuristics:lazy"


# ---- check_machine ----------------------------------------------------------------------------------------------


def test_engines_that_this_machine_lacks(monkeypatch):
    monkeypatch.setattr(registry, "_installed", lambda name: False)
    monkeypatch.setattr(isaacgym_install, "package_folder", lambda: None)
    assert "mujoco-warp" in refusal("sim=mujoco_warp")
    assert "pip install" in refusal("sim=mujoco_warp", cuda=True)
    assert "pip install" in refusal(cuda=True)
    assert "Isaac Gym" in refusal("sim=isaacgym")
    assert "Isaac Gym" in refusal("sim=isaacgym", cuda=True)


def test_devices_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(registry, "_installed", lambda name: True)
    assert "needs an NVIDIA GPU" in refusal("sim=mujoco_warp")
    assert "device=cuda" in refusal("device=cuda", "sim=mujoco_batch", cuda=True)
    assert "mujoco_warp" in refusal("device=cpu", "sim=mujoco_warp", cuda=True)
    assert "torch sees none" in refusal("device=cuda:1")
    assert "unknown device 'gpu'" in refusal("device=gpu")
