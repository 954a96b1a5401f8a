"""A run with broken numbers, from the command line to what is left on disk."""

from __future__ import annotations

import json

import pytest
import torch

from hepo_isaac.agents.learner import Learner
from hepo_isaac.runs import launch

SMALL = (
    "task=Push2D", "num_envs=16", "train.minibatch_size=64", "train.max_iterations=6", "train.network.units=[16]",
    "evaluation_episodes=0", "tensorboard=false", "plot=false", "torch_threads=1", "checkpoint_every=1",
)  # fmt: skip
CALLS = {"count": 0}


def huge(state):
    return torch.full_like(state.pos[:, 0], 1e38)


def broken_late(state):
    """NaN in one env of the second of three runs, in the third iteration or so."""
    CALLS["count"] += 1
    h = -state.pos[:, 0].abs()
    if CALLS["count"] > 60:
        h[len(h) // 2] = float("nan")
    return h


def launched(capfd, folder, *more):
    CALLS["count"] = 0
    code = launch.main([*SMALL, "run_root=%s" % folder, *more])
    out, err = capfd.readouterr()
    return code, out, err


def tensors(node):
    if isinstance(node, dict):
        # alpha's records begin as infinities: none yet
        return [x for key, value in node.items() if key != "records" for x in tensors(value)]
    if isinstance(node, (list, tuple)):
        return [x for value in node for x in tensors(value)]
    return [node] if isinstance(node, torch.Tensor) and node.is_floating_point() else []


def assert_sound(file):
    found = tensors(torch.load(file, weights_only=True))
    assert len(found) > 10 and all(x.isfinite().all() for x in found)


def folders(root):
    return sorted(file.parent for file in root.rglob("status.json"))


def test_a_broken_update_leaves_the_last_sound_state_which_resumes(capfd, tmp_path, monkeypatch):
    update, calls = Learner.update, iter(range(100))

    def breaks_in_the_fourth_iteration(self, batch):
        found = update(self, batch)
        if next(calls) == 3:
            self.policies.net.flat.data[0, 7] = float("nan")
        return found

    monkeypatch.setattr(Learner, "update", breaks_in_the_fourth_iteration)
    code, _, err = launched(capfd, tmp_path, "algo=hepo")
    (folder,) = folders(tmp_path)
    assert code == 2 and "iteration 4: the update left NaN or infinity" in err and err.count("\n") == 1
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "failed" and "train.learning_rate" in status["reason"]
    written = sorted(file.name for file in (folder / "checkpoints").iterdir())
    assert written == ["failed.pt", *("iteration_%06d.pt" % k for k in (1, 2, 3)), "last.pt"]
    for name in written[1:]:
        assert_sound(folder / "checkpoints" / name)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3
    assert launch.main(["resume=%s" % folder]) == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 6


@pytest.mark.parametrize("algo", ["hepo", "ppo_h", "ppo_j"])
def test_an_absurd_heuristic_is_named(capfd, tmp_path, algo):
    code, _, err = launched(capfd, tmp_path, "algo=" + algo, "heuristic=tests.runs.test_broken_numbers:huge")
    assert code == 2 and "step 1: heuristic tests.runs.test_broken_numbers:huge: NaN, infinity or beyond 1e+15" in err
    assert not list(tmp_path.rglob("last.pt"))


def test_of_three_runs_the_broken_one_fails_and_the_others_finish(capfd, tmp_path):
    code, out, err = launched(
        capfd, tmp_path, "heuristic=tests.runs.test_broken_numbers:broken_late", "seeds=3", "seed=4"
    )
    found = {json.loads((f / "status.json").read_text())["status"]: f for f in folders(tmp_path)}
    states = sorted(json.loads((f / "status.json").read_text())["status"] for f in folders(tmp_path))
    assert states == ["failed", "finished", "finished"] and found["failed"].name.endswith("seed5")
    assert code == 2 and "1 of 3 runs failed" in err and "seed5" in err
    assert "the others go on" in out
    assert (found["finished"] / "summary.json").exists() and not (found["failed"] / "summary.json").exists()
    for folder in folders(tmp_path):
        assert_sound(folder / "checkpoints" / "last.pt")
