"""One schema: every key for every method, the defaults in one place, and the resolved settings of before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hepo_isaac.agents.config import NETWORK, TrainConfig, train_config
from hepo_isaac.config import plain, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.locate import cfg_dir, group_names, task_names
from hepo_isaac.methods.method import MethodConfig, ShapingConfig, method_from_config
from hepo_isaac.methods.multiplier import MultiplierConfig
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.schema import defaults, documented, meanings
from hepo_isaac.settings_page import page, updated
from tests.toy import METHODS

FROZEN = json.loads((Path(__file__).parent / "frozen_settings.json").read_text())
ALGOS = group_names("algo")
BUDGETS = [tuple(pair.split()) for pair in FROZEN["train"]["departures"]]  # a task that came later is not frozen


def flat(mapping, prefix=""):
    out = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            out.update(flat(value, prefix + key + "."))
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out


def settle(*overrides):
    check_overrides(overrides)
    cfg = resolve(compose(overrides), overrides, False)
    validate(cfg)
    return plain(cfg)


# ---- the settings of before the schema ----------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ALGOS)
def test_a_presets_method_is_what_it_was(algo):
    """frozen_settings.json was taken when every preset listed its keys and the defaults were others."""
    wanted = {**FROZEN["methods"]["common"], **FROZEN["methods"]["departures"][algo], "name": algo}
    resolved = settle("task=Push2D", "algo=" + algo)["algo"]
    for cfg in (resolved, OmegaConf.to_container(OmegaConf.load(cfg_dir() / "algo" / (algo + ".yaml")))):
        found = flat(dataclasses.asdict(method_from_config(cfg)))
        if cfg is resolved and wanted["constraint"] == "threshold":
            found["threshold"] = None  # taken from the task's scores
        assert found == wanted


@pytest.mark.parametrize(("task", "budget"), BUDGETS)
def test_a_tasks_training_is_what_it_was(task, budget):
    settled = settle("task=" + task, "budget=" + budget)
    wanted = {**FROZEN["train"]["common"], **FROZEN["train"]["departures"]["%s %s" % (task, budget)]}
    found = {**flat(settled["train"]), "num_envs": settled["num_envs"]}
    later = {"network.critic_units": wanted.get("network.critic_units") or [], "fused": "auto"}
    assert found == {**wanted, **later}


def test_every_preset_is_frozen_and_every_task_of_then():
    assert sorted(FROZEN["methods"]["departures"]) == ALGOS
    assert {task for task, _ in BUDGETS} <= set(task_names()) and len(BUDGETS) == 69


# ---- every key, for every method ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ALGOS)
def test_every_method_has_every_key(algo):
    cfg = OmegaConf.to_container(compose(["task=Push2D", "algo=" + algo]))
    for group in ("algo", "train"):
        assert set(flat(cfg[group])) == set(flat(defaults()[group]))


@pytest.mark.parametrize(
    "overrides",
    [
        ("algo=ppo_h", "algo.whitening=none"),
        ("algo=pbrs", "algo.multiplier.lr=0.1"),
        ("algo=ppo_j", "algo.share_data=none", "algo.contrast=start_value"),
        ("algo=hepo", "algo.reference_noise=0.01", "train.network.critic_units=[8]"),
    ],
)
def test_a_key_may_be_set_for_any_method(overrides):
    settle("task=Push2D", *overrides)


@pytest.mark.parametrize(
    "override",
    [
        "algo.share_data=both",
        "algo.share_data=pi",
        "algo.foreign_advantage=vtrace",
        "algo.collection=alternating",
        "algo.whitening=critic",
        "algo.critic_data=both",
        "algo.minibatch_order=interleaved",
        "algo.frozen_reference=x.pt",
        "algo.reference_noise=0.1",
    ],
)
def test_a_second_policy_asked_for_where_there_is_one_is_refused(override):
    with pytest.raises(UserError, match=r"%s needs two policies, and algo=ppo_h trains one" % override):
        settle("task=Push2D", "algo=ppo_h", override)


def test_the_wrong_type_is_still_refused_by_name():
    with pytest.raises(UserError, match="algo.multiplier.lr must be a number, got fast"):
        check_overrides(["algo=ppo_h", "algo.multiplier.lr=fast"])
    with pytest.raises(UserError, match="did you mean 'algo.whitening'"):
        check_overrides(["algo=ppo_h", "algo.whitning=none"])


def test_a_method_without_a_name_is_refused():
    with pytest.raises(UserError, match="algo.name is missing"):
        settle("task=Push2D", "algo=ppo_h", "algo.name=null")


def test_what_wins_command_line_budget_algo_task_schema():
    base = defaults()["train"]["max_iterations"]
    plain_cfg = compose(["task=FrankaCabinet"])
    assert plain_cfg.train.max_iterations == 1500 != base  # the task, over the schema
    assert plain_cfg.train.gamma == defaults()["train"]["gamma"]
    assert compose(["task=FrankaCabinet", "algo=eipo"]).algo.multiplier.rule == "sgd"  # the method, over the schema
    assert settle("task=FrankaCabinet", "budget=demo")["train"]["max_iterations"] == 400  # the budget, over the task
    given = ("task=FrankaCabinet", "budget=demo", "train.max_iterations=7")
    assert settle(*given)["train"]["max_iterations"] == 7


# ---- one place for a default --------------------------------------------------------------------------------------


def test_hepo_is_the_defaults():
    """Its file says what makes a method; what it does not say cannot contradict it."""
    assert set(METHODS["hepo"]) == {"name", "objectives", "constraint"}
    hepo = method_from_config(METHODS["hepo"])
    shown = dataclasses.replace(MethodConfig("hepo"), objectives=hepo.objectives, constraint=hepo.constraint)
    usual = {f.name: f.default for f in dataclasses.fields(MethodConfig)}
    for key in set(usual) - {"name", "objectives", "constraint", "shaping", "multiplier", "references"}:
        assert getattr(hepo, key) == usual[key], key
    assert (hepo.shaping, hepo.multiplier) == (ShapingConfig(), MultiplierConfig())
    assert shown.name == hepo.name


@pytest.mark.parametrize("algo", ALGOS)
def test_a_methods_file_says_only_what_departs(algo):
    usual = flat(defaults()["algo"])
    said = flat(OmegaConf.to_container(OmegaConf.load(cfg_dir() / "algo" / (algo + ".yaml"))))
    same = {key for key, value in said.items() if usual[key] == value}
    assert same <= {"name", "objectives", "constraint"}


@pytest.mark.parametrize("task", task_names())
def test_a_tasks_file_says_only_what_departs(task):
    cfg = OmegaConf.load(cfg_dir() / "task" / (task + ".yaml"))
    family, entries = [], [entry for entry in cfg.defaults if str(entry).startswith("_bidex")]
    while entries:
        family.insert(0, OmegaConf.load(cfg_dir() / "task" / (entries.pop() + ".yaml")))
        entries = [entry for entry in family[0].defaults if str(entry).startswith("_bidex")]
    (group,) = [entry["/train"] for file in (*family, cfg) for entry in file.defaults if "/train" in entry]
    shared = OmegaConf.merge(defaults()["train"], OmegaConf.load(cfg_dir() / "train" / (group + ".yaml")))
    for file in (*family, cfg):
        below, said = flat(OmegaConf.to_container(shared)), flat(OmegaConf.to_container(file).get("train", {}))
        assert {key for key, value in said.items() if below[key] == value} == set()
        shared = OmegaConf.merge(shared, file.get("train", {}))
    assert group == ("robot" if any("physics" in file.task for file in (*family, cfg)) else "suite")


@pytest.mark.parametrize("cls", [MethodConfig, ShapingConfig, MultiplierConfig, TrainConfig])
def test_every_key_is_documented(cls):
    assert set(documented(cls)) == {f.name for f in dataclasses.fields(cls)}
    assert all(len(text) > 8 for text in documented(cls).values())


def test_meanings_name_the_keys_as_they_are_typed():
    keys = [key for key, _, _ in meanings()]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {"%s.%s" % (group, key) for group, inner in defaults().items() for key in flat(inner)}
    assert all("train.network." + key in keys for key in NETWORK)


def test_the_page_of_settings_is_of_this_code():
    text = page().read_text(encoding="utf-8")
    assert text == updated(text), "run python -m hepo_isaac.settings_page"
    assert updated(text.replace("| `algo.mixing` | `ratio` |", "| `algo.mixing` | `convex` |")) == text


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(UserError, match="lacks the lines"):
        updated("# Settings\n")


def test_train_is_built_from_what_is_there():
    assert train_config({}) == TrainConfig()
    assert train_config({"network": {"units": [8]}, "num_envs": 4}).units == (8,)
    with pytest.raises(ValueError, match=r"unknown key train\.gama; valid: .*gamma"):
        train_config({"gama": 1})
    with pytest.raises(ValueError, match=r"unknown key train\.network\.unit; valid: activation"):
        train_config({"network": {"unit": [8]}})
