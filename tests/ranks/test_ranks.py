"""One run over several processes: every rank has the same policies, and they learn what one process would have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hepo_isaac import ranks
from tests.ranks import worker

ROOT = Path(__file__).resolve().parents[2]


def on_ranks(what: str, size: int, folder: Path):
    """What ``worker.<what>`` found on ``size`` ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = folder / (what + ".pt")
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = []
    for rank in range(size):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        env.update((k, str(v)) for k, v in shared.items())
        command = [sys.executable, "-m", "tests.ranks.worker", what, str(out)]
        running.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=500)[1] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(said)[-3000:]
    return torch.load(out, weights_only=False)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_rank_has_the_same_policies_after_each_iteration(size, tmp_path):
    """Weights, moments, statistics, alpha and metrics, to the byte, for every method."""
    found = on_ranks("identical", size, tmp_path)
    assert set(found) == {" ".join(v) for v in worker.ALL}
    for name, parts in found.items():
        seen, metrics, episodes = zip(*parts)
        assert len(seen) == size and len(seen[0]) == 5, name
        assert len(set(map(tuple, seen))) == 1, name
        assert len(set(seen[0])) == 5, name  # and they do learn
        assert len(set(metrics)) == 1, name
        assert min(episodes) > 0, name


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    return on_ranks("batches", 2, tmp_path_factory.mktemp("batches"))


@pytest.mark.parametrize("variant", worker.VARIANTS, ids=" ".join)
def test_a_gradient_of_two_ranks_is_the_gradient_of_one_process(variant, batches):
    """On the same rollout, cut in two or whole: gradient, statistics, normalisers, alpha."""
    alone, together = worker.one_batch(variant), batches[" ".join(variant)]
    assert alone["gradient"].norm() > 1e-3
    torch.testing.assert_close(together["gradient"], alone["gradient"], rtol=2e-3, atol=2e-6)
    for name, value in alone["stats"].items():
        if name not in RATIOS:
            torch.testing.assert_close(together["stats"][name], value, rtol=1e-3, atol=1e-6, msg=name)
    for name in ("obs_norm", "value_norm", "multiplier", "experience"):
        close(together["state"][name], alone["state"][name], name)


RATIOS = ("ess_foreign", "clip_fraction_own", "clip_fraction_foreign")  # means over ranks of what is no mean of rows


def close(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key], where + "." + key)
    elif one.dtype.is_floating_point:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True, msg=where)
    else:
        assert torch.equal(one, other), where


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    return on_ranks("resumed", 2, tmp_path_factory.mktemp("resumed"))


def test_two_ranks_go_on_exactly(resumed):
    """3 + 3 iterations are 6, environments and streams of every rank included."""
    for name, (whole, rest) in resumed.items():
        assert whole["iteration"] == rest["iteration"] == 6
        equal(whole, rest, name)


def equal(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            equal(one[key], other[key], "%s.%s" % (where, key))
    elif isinstance(one, (list, tuple)):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            equal(a, b, "%s[%d]" % (where, index))
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)), where
    else:
        assert one == other, where


def test_what_two_ranks_saved_goes_on_in_one_process(resumed):
    """The state is that of one process, with a row for every environment."""
    state = resumed["hepo"][0]
    assert len(state["env"]["progress"]) == worker.ENVS and len(state["ranks"]) == 2
    streams = [s["streams"][0] for s in state["ranks"]]
    assert not torch.equal(*streams)
    watcher = worker.Watcher(7, [state])
    agent = worker.agent_of(worker.settings(("hepo",)), watcher)
    agent.max_iterations = 7
    agent.train()
    assert agent.iteration == 7 and len(watcher.rows) == 1
    flat = agent.own_state()["learner"]["flat"]
    assert flat.isfinite().all() and not torch.equal(flat, state["learner"]["flat"])


def test_windows_count_the_episodes_of_all_ranks(tmp_path):
    """Eight envs in two members, eight episodes each: complete after two of every env, on one rank and on two."""
    alone, together = worker.windows(), on_ranks("windows", 2, tmp_path)
    assert [bool(ready) for _, _, ready in alone] == [False, True, False]
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_streams_of_ranks_are_unlike_and_rank_0_has_the_runs_own():
    seeds = [ranks.own_seed(seed, rank, generation) for seed in range(50) for rank in range(8) for generation in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert ranks.own_seed(42, 0) == 42
    assert all(0 <= seed < 2**62 for seed in seeds)
