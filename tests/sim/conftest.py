from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not: makes simlab importable

from simlab import build, workshop  # noqa: E402

ONLY_FAKE = sys.version_info < (3, 11)  # make test-py38: MuJoCo's own engines need 3.11
WARP = pytest.param("warp", marks=pytest.mark.slow)


def pytest_generate_tests(metafunc):
    """Engine by engine; Isaac Gym is a fake whose dynamics are too simple for the tests marked ``dynamics``."""
    if "engine" in metafunc.fixturenames:
        simple = metafunc.definition.get_closest_marker("dynamics") is None
        engines = ["isaacgym"] if simple or ONLY_FAKE else []
        engines = engines if ONLY_FAKE else ["batch", WARP, *engines]
        metafunc.parametrize("engine", engines, indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    """Where the fake is the only engine, tests that it is too simple for are not there."""
    too_much = [item for item in items if ONLY_FAKE and item.get_closest_marker("dynamics")]
    if too_much:
        items[:] = [item for item in items if item not in too_much]
        config.hook.pytest_deselected(items=too_much)


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
