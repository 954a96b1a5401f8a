"""Folders that cannot be written, disks without room, names with every character: a sentence, nothing half done."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hepo_isaac.aliases import quoted, translate
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.runs import launch
from hepo_isaac.runs.compare.data import moment
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.folder import FINISHED, RunFolder
from hepo_isaac.runs.record.metrics_csv import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "task=Push2D", "num_envs=16", "train.minibatch_size=64", "train.network.units=[16]", "evaluation_episodes=0",
    "plot=false", "torch_threads=1", "train.fused=false", "device=cpu",
)  # fmt: skip


def folders(root):
    return [RunFolder(file.parent) for file in sorted(root.rglob("config.yaml"))]


@pytest.mark.parametrize("tensorboard", ["true", "false"])
def test_a_disk_without_room_ends_the_run_in_a_sentence_and_keeps_what_there_is(tmp_path, tensorboard):
    """The limit on a file's size stands for the full disk: metrics.csv reaches it after some hundred rows."""
    command = [
        sys.executable, str(ROOT / "train.py"), *SMALL, "train.max_iterations=5000", "checkpoint_every=50",
        "train.mini_epochs=1", "tensorboard=" + tensorboard, "run_root=%s" % tmp_path,
    ]  # fmt: skip
    limit = 75_000

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=full, timeout=120)
    (folder,) = folders(tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "metrics.csv: File too large; expected room for a row" in errors[0]
    status = json.loads(folder.status_file.read_text())
    assert status["status"] == "failed" and "metrics.csv" in status["reason"]
    rows = read_metrics(folder.metrics_file)["iteration"]
    assert rows.tolist() == list(range(1, len(rows) + 1)) and len(rows) > 50
    saved = load_checkpoint(folder.checkpoints / "last.pt")["iteration"]
    assert 50 <= saved <= len(rows)
    resumed = launch.main(["resume=%s" % folder.path, "train.max_iterations=%d" % (len(rows) + 3), "tensorboard=false"])
    assert resumed == 0 and read_metrics(folder.metrics_file)["iteration"].tolist() == list(range(1, len(rows) + 4))


def test_no_room_for_the_last_checkpoint_says_what_is_lost(tmp_path):
    """metrics.csv fits and a checkpoint does not: first where none was ever saved, then where one of iteration 3 is."""

    def without_room(*arguments):
        def full():
            resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))

        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=full, timeout=120)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("error: ")]

    small = (*SMALL, "tensorboard=false")
    (said,) = without_room(*small, "train.max_iterations=3", "run_root=%s" % (tmp_path / "none"))
    assert "last.pt: File too large; expected room for it: iteration 3 is lost" in said
    assert "nothing had been saved before; make room and train again" in said and "resume=" not in said
    (folder,) = folders(tmp_path / "none")
    status = json.loads(folder.status_file.read_text())
    assert status["status"] == "failed" and "resume" not in status
    assert read_metrics(folder.metrics_file)["iteration"].tolist() == [1, 2, 3]

    assert launch.main([*small, "train.max_iterations=3", "run_root=%s" % (tmp_path / "one")]) == 0
    (folder,) = folders(tmp_path / "one")
    (said,) = without_room("resume=%s" % folder.path, "train.max_iterations=5")
    assert "iteration 5 is lost, earlier checkpoints are unharmed; make room and go on with" in said
    assert load_checkpoint(folder.checkpoints / "last.pt")["iteration"] == 3
    assert json.loads(folder.status_file.read_text())["saved_iteration"] == 3
    assert launch.main(["resume=%s" % folder.path]) == 0
    assert folder.status() == FINISHED and read_metrics(folder.metrics_file)["iteration"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "name", ["a,b", "a b", "x'y", 'q"q', "back\\slash", "end\\", "${oc.env:HOME}", "[1]", "{k}", "ü=1", "~"]
)
def test_a_run_root_may_have_any_name(capfd, tmp_path, monkeypatch, name):
    root = tmp_path / name
    small = (*SMALL, "train.max_iterations=2", "tensorboard=false", "run_root=%s" % root)
    assert launch.main(list(small)) == 0, capfd.readouterr().err
    (folder,) = folders(root)
    assert launch.main(["resume=%s" % folder.path, "train.max_iterations=3"]) == 0, capfd.readouterr().err
    assert folder.status() == FINISHED and len(read_metrics(folder.metrics_file)["iteration"]) == 3
    from hepo_isaac import cli

    assert cli.main(["eval", "run=%s" % folder.path, "episodes=16"]) == 0, capfd.readouterr().err


def test_two_runs_whose_paths_have_commas_go_on_together(capfd, tmp_path):
    root = tmp_path / "a,b"
    small = (*SMALL, "train.max_iterations=2", "tensorboard=false", "run_root=%s" % root, "seeds=2")
    assert launch.main(list(small)) == 0, capfd.readouterr().err
    both = ",".join(str(folder.path) for folder in folders(root))
    assert launch.main(["resume=" + both, "train.max_iterations=3"]) == 0, capfd.readouterr().err
    assert [len(read_metrics(folder.metrics_file)["iteration"]) for folder in folders(root)] == [3, 3]


def test_a_sweep_writes_into_any_run_root_too(capfd, tmp_path):
    root = tmp_path / "a,b"
    small = (*SMALL, "train.max_iterations=1", "tensorboard=false", "run_root=%s" % root)
    assert launch.main(["-m", *small, "seed=1,2"]) == 0, capfd.readouterr().err
    assert len(folders(root)) == 2


@pytest.mark.parametrize("text", ["a'b", "\\'", "\\\\${x}", "'quoted'", "a\\\\"])
def test_quoting_is_undone_by_hydra(text):
    assert compose(["run_root=" + quoted(text)]).run_root == text
    assert translate(["run_root='given quotes'"]) == ["run_root='given quotes'"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=4294967296"], "seed must be from 0 to 4294967295"),
        (["seed=-1"], "seed must be from 0"),
        (["seed=4294967295", "seeds=2"], "goes beyond the largest seed"),
        (["seeds=[1,4294967296]"], "whole numbers from 0 to 4294967295"),
        (["algo=pbrs", "train.horizon_length=1"], "no step to look ahead to; expected at least 2"),
    ],
)
def test_what_cannot_be_is_one_sentence(capfd, tmp_path, overrides, said):
    code = launch.main([*SMALL, "run_root=%s" % tmp_path, *overrides])
    err = capfd.readouterr().err
    assert code == 2 and said in err and err.count("\n") == 1 and not folders(tmp_path)


def test_a_run_root_that_cannot_be_is_one_sentence(capfd, tmp_path):
    (tmp_path / "file").write_text("")
    code = launch.main([*SMALL, "run_root=%s" % (tmp_path / "file")])
    err = capfd.readouterr().err
    assert code == 2 and "cannot create a run folder" in err and err.count("\n") == 1


def test_times_are_compared_as_moments_not_as_text():
    """Before and after the clocks went back: as text the earlier one is the later."""
    before, after = "2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00"
    assert before > after and moment(before) < moment(after)
    assert moment("2026-10-25T00:30:00+00:00") == moment(before) and moment("no time") == 0.0


def test_overrides_of_a_path_are_checked_like_others():
    check_overrides(translate(["run_root=a,b"]))
