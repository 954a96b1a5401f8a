"""Fixtures of the runs tests."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest

from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.train.observer import RunObserver, RunOptions

FAKE_AGENT = Path(__file__).with_name("fake_agent.py")
HEADER = {"task": "Fake", "algo": "hepo", "num_envs": 8, "seed": 7}


@pytest.fixture(scope="session")
def fake():
    """The fake_agent module (tests are no package, so it cannot simply be imported)."""
    spec = importlib.util.spec_from_file_location("fake_agent", FAKE_AGENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """A fresh run folder."""
    return RunFolder.create("Fake", "hepo", 7, {"task": "Fake", "nested": {"a": 1}}, root=tmp_path / "runs")


@pytest.fixture
def make_observer(folder):
    """Build an observer that prints into a string and draws and uploads nothing."""

    def build(resume=None, run_folder=None, **options):
        defaults = {"tensorboard": False, "plot": False, "min_episodes": 4}
        defaults.update(options)
        return RunObserver(
            run_folder or folder,
            HEADER,
            [("engine", "none"), ("device", "cpu")],
            RunOptions(**defaults),
            resume=resume,
            stream=io.StringIO(),
        )

    return build
