from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from hepo_isaac.errors import CheckpointError
from hepo_isaac.runs.record.checkpoint import CheckpointStore, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def payload(iteration=5, **changes):
    found = {
        "format": "hepo_isaac",
        "version": 1,
        "task": "Fake",
        "algo": "hepo",
        "num_envs": 8,
        "seed": 7,
        "iteration": iteration,
        "env_steps": 64 * iteration,
        "agent": {"w": torch.arange(3000.0), "opt": [{"lr": 1e-3, "step": torch.tensor(4)}], "name": "π"},
    }
    found.update(changes)
    return found


def refusal(path, **wanted):
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **wanted)
    after = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert before == after, "a refused checkpoint must leave the disk as it was"
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_round_trip_is_bit_exact(tmp_path):
    agent = {"w": torch.randn(50), "half": torch.randn(5).half(), "rng": torch.get_rng_state(), "nan": float("nan")}
    save_checkpoint(tmp_path / "last.pt", payload(agent=agent))
    back = load_checkpoint(tmp_path / "last.pt", "Fake", "hepo")["agent"]
    for name in ("w", "half", "rng"):
        assert back[name].dtype == agent[name].dtype
        assert torch.equal(back[name], agent[name])
    assert back["nan"] != back["nan"]


def test_a_slice_does_not_drag_its_storage_along(tmp_path):
    save_checkpoint(tmp_path / "last.pt", payload(agent={"w": torch.zeros(1_000_000)[:3]}))
    assert (tmp_path / "last.pt").stat().st_size < 20_000


def test_numpy_scalars_become_numbers_and_objects_are_refused_by_place(tmp_path):
    save_checkpoint(tmp_path / "a.pt", payload(agent={"x": np.float64(1.5)}))
    assert load_checkpoint(tmp_path / "a.pt")["agent"]["x"] == 1.5
    with pytest.raises(TypeError, match=r"agent.*\['deep'\]\[1\]"):
        save_checkpoint(tmp_path / "a.pt", payload(agent={"deep": [0, object()]}))
    assert load_checkpoint(tmp_path / "a.pt")["agent"]["x"] == 1.5


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_in_the_middle_of_a_save_leaves_the_previous_one(tmp_path, moment):
    save_checkpoint(tmp_path / "last.pt", payload(iteration=5))
    program = """
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from hepo_isaac.runs.record import files
        setattr(files.os, sys.argv[3], lambda *a: os._exit(9))
        files.write_atomic(Path(sys.argv[2]), b"half a checkpoint")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(ROOT), str(tmp_path / "last.pt"), moment]
    assert subprocess.run(command, check=False).returncode == 9
    assert load_checkpoint(tmp_path / "last.pt")["iteration"] == 5
    assert len(list(tmp_path.glob(".*.tmp"))) == 1


def test_a_failed_write_keeps_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", payload(iteration=5))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path / "last.pt", payload(iteration=6))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last.pt")["iteration"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.95, 0.999])
def test_truncated_names_the_newest_good_one(tmp_path, keep):
    for iteration, name in ((3, "iteration_000003.pt"), (9, "best.pt"), (12, "last.pt")):
        save_checkpoint(tmp_path / name, payload(iteration))
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(data[: int(len(data) * keep)])
    message = refusal(tmp_path / "last.pt")
    assert "truncated" in message
    assert str(tmp_path / "best.pt") in message
    assert "iteration 9" in message


def test_the_advised_checkpoint_is_itself_checked(tmp_path):
    save_checkpoint(tmp_path / "iteration_000003.pt", payload(3))
    (tmp_path / "best.pt").write_bytes(b"broken too")
    (tmp_path / "last.pt").write_bytes(b"broken")
    assert "iteration_000003.pt" in refusal(tmp_path / "last.pt")


def test_nothing_good_beside_it(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"broken")
    assert "no good checkpoint" in refusal(tmp_path / "last.pt")


def test_a_flipped_bit_inside_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, payload())
    data = bytearray(path.read_bytes())
    place = bytes(data).find(torch.arange(3000.0).numpy().tobytes()[4000:4100])
    assert place > 0
    data[place] ^= 1
    path.write_bytes(bytes(data))
    assert "damaged" in refusal(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("code_from_the_file_ran",)


def test_code_in_a_file_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"format": "hepo_isaac", "version": 1, "agent": Evil()}, folder / "last.pt")
    (folder / "old.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("last.pt", "old.pt"):
        refusal(folder / name)
    assert not (tmp_path / "code_from_the_file_ran").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "rl_games"}, "not written by hepo_isaac"),
        ({"version": 2}, "format version 2"),
        ({"version": None}, "format version"),
        ({"task": "Ant"}, "task=Ant"),
        ({"algo": "ppo_h"}, "algo=ppo_h"),
    ],
)
def test_foreign(tmp_path, changes, words):
    save_checkpoint(tmp_path / "last.pt", payload(**changes))
    assert words in refusal(tmp_path / "last.pt", task="Fake", algo="hepo")


def test_foreign_shapes(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    assert "not written by hepo_isaac" in refusal(tmp_path / "list.pt")
    lacking = payload()
    del lacking["agent"]
    save_checkpoint(tmp_path / "lacking.pt", lacking)
    assert "lacks agent" in refusal(tmp_path / "lacking.pt")
    assert "no such file" in refusal(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "nowhere" / "last.pt")


def test_another_tasks_checkpoint_is_not_advised(tmp_path):
    save_checkpoint(tmp_path / "best.pt", payload(50, task="Ant"))
    (tmp_path / "last.pt").write_bytes(b"broken")
    assert "no good checkpoint" in refusal(tmp_path / "last.pt", task="Fake", algo="hepo")


def test_keep_limit_drops_the_oldest_written(tmp_path, fake):
    store = CheckpointStore(tmp_path, {"task": "Fake", "algo": "hepo", "num_envs": 8, "seed": 7}, keep=2)
    # 30 belongs to a future that was given up when the run went back to 10
    for moment, iteration in enumerate((10, 30, 15, 20)):
        agent = fake.FakeAgent(99)
        agent.iteration = iteration
        path = store.write_periodic(iteration, store.pack(agent, {}))
        os.utime(path, (1000 + moment, 1000 + moment))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iteration_000015.pt", "iteration_000020.pt"]
