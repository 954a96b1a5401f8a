"""Rows judged in pieces on a CPU: the same answers as at once, and no peak of memory with many environments."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hepo_isaac.agents import policies as module
from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.policies import Policies
from hepo_isaac.runs.machine.rig import settings

PEAK = """
import resource, torch
from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.policies import Policies
from hepo_isaac.runs.machine.rig import settings
train = train_config(settings("FrankaCabinet", 16384, "hepo", "budget=cpu", "train.minibatch_size=8192")["train"])
policies = Policies(2, train, 23, 9, [torch.Generator().manual_seed(0)], torch.device("cpu"))
policies.mean_and_values(torch.zeros(2, 64, 23))
obs = torch.zeros(2, 8192 * 16, 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
policies.mean_and_values(obs)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0)
"""


def test_pieces_answer_as_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    train = train_config(settings("QuadraticPoint", 8, "hepo")["train"])
    policies = Policies(2, train, 5, 3, [torch.Generator().manual_seed(0)], torch.device("cpu"))
    obs = torch.randn(2, 1000, 5, generator=torch.Generator().manual_seed(1))
    whole = policies.mean_and_values(obs)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 96)  # the last piece is shorter
    for one, other in zip(whole, policies.mean_and_values(obs)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_judging_a_rollout_of_16384_envs_has_no_peak() -> None:
    """The hidden layers of 262,144 rows are 470 MB; the answers 13."""
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 120.0
