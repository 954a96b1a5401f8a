from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not: makes simlab importable

from simlab import build, workshop  # noqa: E402

WARP = pytest.param("warp", marks=pytest.mark.slow)


@pytest.fixture(scope="session", params=["batch", WARP])
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
