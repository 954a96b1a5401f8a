"""No engine is named outside hepo_isaac/sim and the yamls: what one can do is data, in its entry of sim/engines.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hepo_isaac.locate import group_names
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE, ENGINES, NO_PHYSICS, PHYSX_ENGINE, physics_engines

ROOT = Path(__file__).resolve().parents[1]
# The package's __init__ asks for Isaac Gym's package, which has its engine's name, before anything may be imported.
SOURCES = [
    path
    for path in sorted([*(ROOT / "hepo_isaac").rglob("*.py"), *(ROOT / "tasks").rglob("*.py"), ROOT / "train.py"])
    if ROOT / "hepo_isaac" / "sim" not in path.parents and path != ROOT / "hepo_isaac" / "__init__.py"
]


def named(source):
    """Engines that a string of the code is the name of, or asks for as sim=<name>; messages may name them."""
    strings = [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [text for text in strings if text in ENGINES or (text[:4] == "sim=" and text[4:] in ENGINES)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_engine_is_named(path):
    assert named(path.read_text(encoding="utf-8")) == []


def test_the_check_finds_what_it_is_for():
    assert named('if sim == "isaacgym": pass') == ["isaacgym"]
    assert named('overrides = ["sim=mujoco_batch"]') == ["sim=mujoco_batch"]
    assert named('raise E("sim=isaacgym makes no films; use mujoco_batch")') == []


def test_the_table_is_of_the_engines_that_there_are():
    assert sorted(ENGINES) == [name for name in group_names("sim") if name != "auto"]
    assert all(name == entry.name for name, entry in ENGINES.items())
    assert all(set(entry.devices) <= {"cpu", "cuda"} for entry in ENGINES.values())
    assert all(entry.automatic in (*entry.devices, "any") for entry in ENGINES.values())
    assert physics_engines() == [CPU_ENGINE, CUDA_ENGINE, PHYSX_ENGINE]
    assert not ENGINES[NO_PHYSICS].physics
