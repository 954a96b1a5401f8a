"""Everything of bad_inputs.py is one sentence that names what is wrong, exit code 2, and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hepo_isaac import cli, plugins
from hepo_isaac.runs import launch
from tests.cli import bad_inputs, bad_lab

ROOT = Path(__file__).resolve().parents[2]
CASES = bad_inputs.cases()


def files(folder):
    """What is there and when it was written; what Python compiles and who locks a run does not matter."""
    return {
        (str(path.relative_to(folder)), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "lock" not in path.name
    }


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The folder of bad_lab.py; at the end, nothing in it has changed."""
    folder = tmp_path_factory.mktemp("lab")
    bad_lab.build(folder)
    before = files(folder)
    yield folder
    assert files(folder) == before


def answered(capfd, lab, bad):
    """Exit code and stderr of a command."""
    capfd.readouterr()
    arguments = [argument.replace("{lab}", str(lab)) for argument in bad.arguments]
    code = launch.typed(arguments) if bad.command == "train" else cli.main([bad.command, *arguments])
    return code, capfd.readouterr().err


def test_there_are_enough_of_every_command():
    assert len(CASES) > 600
    assert len(set(CASES)) == len(CASES)
    per_command = Counter(bad.command for bad in CASES)
    assert set(cli.COMMANDS) <= set(per_command)


@pytest.mark.parametrize(
    "bad",
    [pytest.param(b, id=b.name[:90], marks=[pytest.mark.slow] if b.slow else []) for b in CASES],
)
def test_bad_input_is_one_sentence(capfd, lab, tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(lab))
    monkeypatch.setattr(plugins, "_named", {})
    code, err = answered(capfd, lab, bad)
    assert err.startswith("error: ") and err.count("\n") == 1, err[-2000:]
    assert code == 2
    assert [word for word in bad.words if word not in err] == [], err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_right_is_not_refused(capfd, lab, tmp_path, monkeypatch):
    """So that the table does not pass because nothing works in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(lab))
    good = [o for o in bad_lab.SMALL if not o.startswith("train.max_iterations")]
    assert launch.main([*good, "train.max_iterations=1", "algo.name=my-hepo_2.0", "wandb.group=a.b"]) == 0
    assert [p.name for p in (tmp_path / "runs" / "Push2D").iterdir()] == ["my-hepo_2.0"]


def test_a_working_directory_that_was_deleted(capfd, tmp_path):
    here, gone = os.getcwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        for main, arguments in ((launch.main, ["task=Push2D"]), (cli.main, ["tasks"])):
            assert main(arguments) == 2
            err = capfd.readouterr().err
            assert err.startswith("error: the working directory is not there any more") and err.count("\n") == 1
    finally:
        os.chdir(here)


def test_a_terminal_without_unicode(tmp_path):
    """All in one process, since each costs seconds: help, a table, and an error with a name in it."""
    code = (
        "import sys\nfrom hepo_isaac import cli\n"
        "codes = [cli.main(a) for a in (['--help'], ['tasks'], ['train', '--help'], ['train', 'algo.name=h\\u00e9'])]\n"
        "sys.exit(0 if codes == [0, 0, 0, 2] else str(codes))"
    )
    env = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "0",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"FrankaCabinet" in done.stdout and all(byte < 128 for byte in done.stdout + done.stderr)
