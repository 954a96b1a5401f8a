from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not: makes simlab importable

from simlab import build, workshop  # noqa: E402

WARP = pytest.param("warp", marks=pytest.mark.slow)


def pytest_generate_tests(metafunc):
    """Engine by engine; Isaac Gym is a fake whose dynamics are too simple for the tests marked ``dynamics``."""
    if "engine" in metafunc.fixturenames:
        simple = metafunc.definition.get_closest_marker("dynamics") is None
        engines = ["batch", WARP, *(["isaacgym"] if simple else [])]
        metafunc.parametrize("engine", engines, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request):
    return request.param


@pytest.fixture(scope="session")
def shared(engine):
    return build(engine, workshop())


@pytest.fixture
def sim(shared):
    """The workshop in its initial state."""
    shared.reset(torch.ones(shared.num_envs, dtype=torch.bool, device=shared.device))
    return shared
