"""One run over several processes: every rank has the same policies, and they learn what one process would have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hepo_isaac import ranks
from hepo_isaac.agents.soundness import APART, PREFIX, UPDATE
from hepo_isaac.agents.spread import own_part, put_together
from hepo_isaac.envs.faults import FAULTS
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rows import check_rows
from hepo_isaac.locate import task_names
from hepo_isaac.overrides import compose
from hepo_isaac.runs.launch import prepare
from tests.ranks import worker
from tests.tasks.sampled import CHOSEN, sampled

ROOT = Path(__file__).resolve().parents[2]


def on_ranks(what: str, size: int, folder: Path):
    """What ``worker.<what>`` found on ``size`` ranks; several words do it one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = folder / "found.pt"
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


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two ranks found: processes that start cost seconds, so they do everything that tests here ask for."""
    asked = ("identical", "batches", "resumed", "windows", "counted", "faulty")
    return dict(zip(asked, on_ranks(",".join(asked), 2, tmp_path_factory.mktemp("two"))))


def test_every_rank_has_the_same_policies_after_each_iteration(two):
    """Weights, moments, statistics, alpha and metrics, to the byte, for every method."""
    assert_identical(two["identical"], 2)


@pytest.mark.slow
def test_three_ranks_have_the_same_policies_after_each_iteration(tmp_path):
    assert_identical(on_ranks("identical", 3, tmp_path)[0], 3)


def assert_identical(found, size):
    assert set(found) == {" ".join(v) for v in worker.ALL}
    for name, parts in found.items():
        seen, metrics, episodes = zip(*parts)
        assert len(seen) == size and len(seen[0]) == 5, name
        assert len(set(map(tuple, seen))) == 1, name
        assert len(set(seen[0])) == 5, name  # and they do learn
        assert len(set(metrics)) == 1, name
        assert min(episodes) > 0, name


@pytest.mark.parametrize("scene", worker.SCENES)
def test_a_gradient_of_two_ranks_is_the_gradient_of_one_process(scene, two):
    """On the same rollout, cut in two or whole: gradient, statistics, normalisers, alpha."""
    variant, more = worker.SCENES[scene]
    alone, together = worker.one_batch(variant, **more), two["batches"][scene]
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


def test_two_ranks_go_on_exactly(two):
    """3 + 3 iterations are 6, environments and streams of every rank included."""
    for name, (whole, rest) in two["resumed"].items():
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


def test_what_two_ranks_saved_goes_on_in_one_process(two):
    """The state is that of one process, with a row for every environment."""
    state = two["resumed"]["hepo"][0]
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


def test_windows_count_the_episodes_of_all_ranks(two):
    """Eight envs in two members, eight episodes each: complete after two of every env, on one rank and on two."""
    alone, together = worker.windows(), two["windows"]
    assert [bool(ready) for _, _, ready in alone] == [False, True, False]
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_what_is_broken_or_apart_on_one_rank_is_known_to_the_first(two):
    """Two faults of rank 1, of which the earlier is named; weights of its second policy less or more than rank 0's."""
    for name, found in two["faulty"].items():
        assert [found[PREFIX + fault].item() for fault in FAULTS] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        assert found[PREFIX + "first"].item() == 2 * len(FAULTS) + 1
        assert found[PREFIX + UPDATE].item() == 0.0
        assert found[PREFIX + APART].item() == (name != "none"), name


def test_what_engines_count_is_of_all_ranks(two):
    """One world of 24 diverged, on rank 1: less than the 5 % that stop a run (of a rank's 12 it would be more)."""
    row = two["counted"]
    assert (row["bad_worlds"], row["overflow"], row["env_steps"]) == (1.0, 3.0, 24 * 8)


def test_streams_of_ranks_are_unlike_and_rank_0_has_the_runs_own():
    seeds = [ranks.own_seed(seed, rank, generation) for seed in range(50) for rank in range(8) for generation in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert ranks.own_seed(42, 0) == 42
    assert all(0 <= seed < 2**62 for seed in seeds)


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setattr(ranks, "active", lambda: True)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)


def test_a_bad_world_has_the_number_it_has_in_one_process(second_of_two):
    """Two runs of two blocks of six envs on each of two ranks: a run's block has twelve, and rank 1 the later six."""
    agent = worker.HepoAgent.__new__(worker.HepoAgent)
    agent.num_envs, agent._blocks, agent.method = 24, 4, SimpleNamespace(num_blocks=2)
    agent.vec_env = SimpleNamespace(bad_states=lambda most: [{"env": e} for e in (0, 5, 6, 12, 23)])
    found = [(s["run"], s["env"]) for s in agent.own_bad_states(9)]
    assert found == [(0, 6), (0, 11), (0, 18), (1, 6), (1, 23)]


def test_a_state_cut_in_two_and_put_together_is_the_same(monkeypatch, second_of_two):
    """Rows of every block of envs, in place; what no env has a row of is everyone's."""
    rows = {"progress": torch.arange(12), "deep": [torch.rand(12, 3)], "shared": torch.arange(12), "n": torch.tensor(3)}
    generator = torch.Generator().manual_seed(1).get_state()
    env = {**rows, "streams": [generator]}
    whole = {"env": env, "meter": {"sums": torch.rand(12, 2), "totals": torch.rand(4, 3)}, "iteration": 5}
    whole["learner"] = {"generators": [generator], "flat": torch.rand(4, 7)}
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(own_part(whole, 3, [42]))
    assert parts[1]["env"]["progress"].tolist() == [2, 3, 6, 7, 10, 11]
    assert parts[0]["env"]["deep"][0].shape == (6, 3) and parts[0]["env"]["shared"].shape == (12,)
    assert torch.equal(parts[0]["env"]["streams"][0], generator)
    assert not torch.equal(parts[1]["env"]["streams"][0], generator)  # a stream of its own
    together = put_together(parts, 3)
    assert [len(s["streams"]) for s in together["ranks"]] == [1, 1]
    together.pop("ranks")
    equal(together, whole, "state")


@pytest.mark.parametrize("task", sampled(task_names(), CHOSEN[:1]))
def test_the_state_of_every_task_can_be_shared_out(task, monkeypatch, second_of_two):
    """All its tensors: cut among two ranks and put together again, they are as they were."""
    given = ["task=" + task, "num_envs=12", "train.minibatch_size=12", "device=cpu"]
    env = make_env(prepare(compose(given), given))
    env.reset()
    generator = torch.Generator().manual_seed(1).get_state()
    whole = {"env": env.get_state(), "meter": None, "learner": {"generators": [generator]}, "iteration": 1}
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(own_part(whole, 2, [42]))
        check_rows({k: v for k, v in parts[-1]["env"].items() if k != "streams"}, 6)
    together = put_together(parts, 2)
    together.pop("ranks")
    equal(together, whole, task)
    env.close()
