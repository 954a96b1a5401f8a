"""The engine without physics: empty tensors, a step counter, and a state that only fits its own size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hepo_isaac.config import resolve
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import compose
from hepo_isaac.sim import registry
from hepo_isaac.sim.registry import make_simulation, resolve_engine
from hepo_isaac.sim.spec import ActorSpec, SceneSpec

CPU = torch.device("cpu")
EMPTY = SceneSpec(actors=(), control_dt=1.0, substeps=1)


@pytest.fixture
def sim():
    return make_simulation("analytic", EMPTY, 3, CPU)


def test_everything_is_empty(sim):
    shapes = {
        "root_state": (3, 0, 13),
        "body_state": (3, 0, 13),
        "dof_pos": (3, 0),
        "dof_vel": (3, 0),
        "dof_force": (3, 0),
        "dof_target_pos": (3, 0),
        "contact_force": (3, 0, 3),
        "force_sensor": (3, 0, 6),
        "dof_lower": (0,),
        "dof_upper": (0,),
    }
    for name, shape in shapes.items():
        assert getattr(sim, name).shape == shape, name
    assert sim.mass_matrix().shape == (3, 0, 0)
    assert sim.bad_envs.tolist() == [False] * 3
    assert sim.overflow_count.item() == 0
    with pytest.raises(ValueError, match="no body"):
        sim.jacobian("arm/hand")
    with pytest.raises(ValueError, match="no physical parameters"):
        sim.randomize("friction", torch.ones(3, dtype=torch.bool), torch.ones(3, 1))
    with pytest.raises(ValueError, match="unknown field"):
        sim.randomize("colour", torch.ones(3, dtype=torch.bool), torch.ones(3, 1))


def test_steps_and_writes_change_the_version(sim):
    seen = {sim.version}
    for change in (sim.step, lambda: sim.reset(torch.ones(3, dtype=torch.bool)), lambda: sim.set_state(sim.bad_envs)):
        change()
        assert sim.version not in seen
        seen.add(sim.version)


def test_may_select_looks_on_the_host_and_answers_yes_on_a_gpu(sim):
    mask = torch.zeros(3, dtype=torch.bool)
    assert sim.may_select(mask) is False
    mask[1] = True
    assert sim.may_select(mask) is True
    sim.device = torch.device("cuda")  # the mask must not be looked at
    assert sim.may_select(torch.zeros(3, dtype=torch.bool, device="meta")) is True


def test_state_round_trip(sim):
    sim.step()
    other = make_simulation("analytic", EMPTY, 3, CPU)
    other.load_state(sim.get_state())
    assert other.version == sim.version
    with pytest.raises(ValueError, match="mujoco_batch"):
        other.load_state({**sim.get_state(), "engine": "mujoco_batch"})


def test_a_scene_with_actors_is_refused():
    scene = SceneSpec(actors=(ActorSpec("arm", Path("arm.xml")),), control_dt=1.0, substeps=1)
    with pytest.raises(ValueError, match="arm"):
        make_simulation("analytic", scene, 1, CPU)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_engine("analytic", "auto") == ("analytic", CPU)
    with pytest.raises(UserError, match="device=cpu"):
        resolve_engine("analytic", "cuda:0")
    with pytest.raises(UserError, match="warp-cpu"):
        resolve_engine("analytic", "warp-cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_engine("analytic", "auto") == ("analytic", torch.device("cuda:0"))
    assert resolve_engine("analytic", "cpu") == ("analytic", CPU)
    with pytest.raises(UserError, match="1 GPU"):
        resolve_engine("analytic", "cuda:1")
    assert registry.available_engines()[-1] == "analytic"


@pytest.mark.parametrize(
    ("overrides", "cuda", "device"),
    [([], False, "cpu"), ([], True, "cuda:0"), (["device=cpu"], True, "cpu"), (["sim=analytic"], False, "cpu")],
)
def test_a_task_that_names_this_engine_alone_gets_it(overrides, cuda, device):
    overrides = ["task=Honeypot", *overrides]
    cfg = resolve(compose(overrides), overrides, cuda)
    assert (cfg.sim.name, cfg.device) == ("analytic", device)
