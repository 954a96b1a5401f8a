from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from hepo_isaac.errors import CheckpointError, UserError
from hepo_isaac.runs.record import folder as folder_module
from hepo_isaac.runs.record.folder import RunFolder, locate_resume
from hepo_isaac.runs.record.metadata import git_state


def test_layout_and_metadata(folder):
    assert folder.path.parts[-3:-1] == ("Fake", "hepo")
    assert folder.path.name.endswith("_seed7")
    assert folder.checkpoints.is_dir()
    about = json.loads(folder.metadata_file.read_text())
    for name in ("git", "versions", "hardware", "command", "started"):
        assert name in about
    for name in ("python", "torch", "mujoco", "rl_games", "hepo_isaac"):
        assert about["versions"][name]
    assert about["hardware"]["cores"] >= 1
    assert OmegaConf.load(folder.config_file).nested.a == 1
    assert folder.status() == "running"
    assert not folder.summary_file.exists()


def test_the_saved_configuration_is_resolved(tmp_path):
    config = OmegaConf.create({"n": 4, "twice": "${n}"})
    text = RunFolder.create("T", "a", 0, config, root=tmp_path).config_file.read_text()
    assert "twice: 4" in text


def test_runs_that_start_together_get_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(RunFolder.create, "T", "a", 0, {}, tmp_path) for _ in range(8)]
        paths = {job.result().path for job in jobs}
    assert len(paths) == 8


def test_a_run_of_a_version_without_locks_is_judged_by_its_process(folder):
    folder.release()
    (folder.path / ".lock").unlink()
    state = json.loads(folder.status_file.read_text())
    state["process_start"] = "1"
    folder.status_file.write_text(json.dumps(state))
    assert folder.status() == "interrupted"
    state["host"] = "somewhere else"
    folder.status_file.write_text(json.dumps(state))
    assert folder.status() == "running", "on another machine, and it wrote a moment ago"
    os.utime(folder.status_file, (time.time() - 2000.0,) * 2)
    assert folder.status() == "interrupted"


def test_resume_notes_itself_and_clears_what_is_no_longer_true(folder):
    folder.summary_file.write_text("{}")
    (folder.checkpoints / ".last.pt.123.tmp").write_bytes(b"half")
    folder.set_status("finished")
    folder.begin_resume()
    assert folder.status() == "running"
    assert not folder.summary_file.exists()
    assert list(folder.checkpoints.iterdir()) == []
    assert len(json.loads(folder.metadata_file.read_text())["resumes"]) == 1


def test_bad_paths_are_named(tmp_path, folder):
    with pytest.raises(UserError, match="no run folder at"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a run folder"):
        locate_resume(tmp_path)
    with pytest.raises(UserError, match="not in the checkpoints"):
        locate_resume(tmp_path / "stray.pt")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        folder.policy_checkpoint()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        RunFolder.create("T", "a", 0, {}, root=tmp_path / "file")


def test_the_resume_command_survives_a_shell(tmp_path):
    path = tmp_path / "my runs"
    command = RunFolder(path).resume_command()
    done = subprocess.run(["sh", "-c", "printf %%s %s" % command.split(" ", 2)[2]], capture_output=True, text=True)
    assert done.stdout == "resume=%s" % path


def test_someone_elses_checkout_is_not_our_commit(tmp_path):
    def git(*args):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        subprocess.run(["git"] + identity + list(args), cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-m", "x")
    assert git_state(tmp_path)["dirty"] is False
    (tmp_path / "a.txt").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    inside = tmp_path / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    assert git_state(inside) is None


def test_a_process_knows_itself_alive():
    here = {"host": folder_module.platform.node(), "pid": os.getpid()}
    assert folder_module._process_lives({**here, "process_start": folder_module._process_start(os.getpid())})
    assert not folder_module._process_lives({**here, "process_start": "1"})


def test_going_back_makes_the_older_checkpoint_the_last(folder):
    last, old, failed = (folder.checkpoints / name for name in ("last.pt", "iteration_000010.pt", "failed.pt"))
    last.write_bytes(b"20")
    old.write_bytes(b"10")
    failed.write_bytes(b"21")
    for checkpoint, expected in ((None, b"20"), (last, b"20"), (failed, b"20"), (old, b"10")):
        folder.release()
        folder.begin_resume(checkpoint)
        assert last.read_bytes() == expected
