"""The files of cfg/sweep and the environment of W&B's agents; with wandb itself in tests/runs/test_wandb.py."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from hepo_isaac.config import override_keys, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.runs import launch
from hepo_isaac.runs.record.wandb_record import WandbRecord, agents_id, leave_the_agent
from hepo_isaac.runs.train import start

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "task=Push2D", "algo=hepo", "num_envs=4", "train.max_iterations=1", "train.mini_epochs=1",
    "torch_threads=1", "tensorboard=false", "plot=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


SWEEPS = sorted((ROOT / "cfg" / "sweep").glob("*.yaml"))


def points(parameters):
    """Every grid point of a sweep file; of a range, its ends."""
    values = []
    for choice in parameters.values():
        found = choice.get("values", [choice["value"]] if "value" in choice else [])
        values.append(found or [choice["min"], choice["max"]])
    return [dict(zip(parameters, point)) for point in itertools.product(*values)]


def agents_command(spec, point):
    """The command that ``wandb agent`` makes of a grid point."""
    known = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": ["python"],
        "${program}": [spec["program"]],
        "${args_no_hyphens}": ["%s=%s" % pair for pair in point.items()],
    }
    return [word for part in spec["command"] for word in known.get(part, [part])]


def test_there_are_sweep_files():
    assert {"hepo_vs_ppo_pbrs", "franka", "alpha"} <= {p.stem for p in SWEEPS}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_a_sweep_file_names_only_what_exists(path):
    spec = yaml.safe_load(path.read_text())
    assert spec["method"] in ("grid", "bayes", "random")
    assert spec["metric"]["name"] == "return_task/pi"
    assert (ROOT / spec["program"]).is_file()
    seen = set()
    for point in points(spec["parameters"]):
        command = agents_command(spec, point)
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        overrides = command[3:]
        assert not any("$" in o or o.startswith("-") for o in overrides)
        key = tuple(o for o in overrides if not o.startswith("seed="))
        if key in seen:
            continue  # another seed of a point that has been judged
        seen.add(key)
        check_overrides(overrides)
        cfg = resolve(compose(overrides), overrides, False)
        validate(cfg)
        assert (cfg.wandb.enabled, cfg.wandb.mode) == (True, "online")
        for name in override_keys(overrides):
            assert OmegaConf.select(cfg, name) is not None


def test_the_check_of_sweep_files_finds_what_it_is_for():
    spec = {"program": "train.py", "command": ["${args_no_hyphens}"]}
    for point in ({"algo": "ppo_hh"}, {"algo": "ppo_h", "algo.multiplier.rate": 0.1}, {"sede": 1}):
        with pytest.raises(UserError):
            check_overrides(agents_command(spec, point))


def test_the_metric_is_one_that_a_run_logs():
    assert launch.main([*SMALL]) == 0
    (file,) = Path("runs").glob("*/*/*/metrics.csv")
    header = file.read_text().splitlines()[0].split(",")
    assert "return_task/pi" in header


def test_sweep_files_are_no_group_of_hydra():
    assert "sweep" not in compose([])
    with pytest.raises(UserError, match="unknown setting 'sweep'"):
        check_overrides(["sweep=franka"])


def test_a_run_of_an_agent_keeps_the_agents_id(tmp_path):
    left_over, agents = {"WANDB_RUN_ID": "agent001"}, {"WANDB_RUN_ID": "agent001", "WANDB_SWEEP_ID": "sweep001"}
    assert agents_id(left_over) is None
    record = WandbRecord(tmp_path)
    assert record.plan(0, False, agents_id(agents)).id == "agent001"
    assert record.plan(5, False, None).id == "agent001"  # resumed later, without the agent
    agents.update(WANDB_PROJECT="theirs", WANDB_ENTITY="me", PATH="/bin")
    assert leave_the_agent(agents) == {"project": "theirs", "entity": "me"}  # for the seeds beside the first
    assert set(agents) == {"WANDB_PROJECT", "WANDB_ENTITY", "PATH"}
    assert leave_the_agent(agents) == {}


def test_several_jobs_are_not_for_an_agent(capfd, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep001")
    assert launch.main(["-m", *SMALL, "seed=1,2", "wandb.enabled=true"]) == 2
    err = capfd.readouterr().err
    assert "a W&B agent has one run for one job, and -m starts several" in err
    assert not Path("runs").exists()


def test_seeds_side_by_side_are_a_group(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    assert launch.main([*SMALL, "seeds=2", "wandb.mode=disabled", "wandb.enabled=true"]) == 0
    groups = {OmegaConf.load(f).wandb.group for f in Path("runs").glob("*/*/*/config.yaml")}
    (group,) = groups
    assert group.startswith("seeds-")
    given = {"enabled": True, "group": None}
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert start.grouped(given) == given
    monkeypatch.delenv("WANDB_RUN_GROUP")
    assert start.grouped({"enabled": True, "group": "mine"})["group"] == "mine"
    assert start.grouped({"enabled": False, "group": None})["group"] is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep001")
    monkeypatch.setenv("WANDB_RUN_ID", "agent001")
    assert start.grouped(given)["group"] == "seeds-agent001"
