"""Every file of a stranger's run folder, and every command that reads one: right, or one sentence that does nothing to
the terminal.

python -m pytest --slow tests/runs/test_hostile_files.py      # every kind of contents with every command
"""

from __future__ import annotations

import pytest
import torch

import hepo_isaac
from hepo_isaac import cli
from hepo_isaac.runs import launch
from tests.runs.hostile_lab import SMALL, changed, downloaded, said, trained


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("original"))


@pytest.fixture
def run(original, tmp_path, monkeypatch):
    return downloaded(original, tmp_path, monkeypatch)


COMMANDS = {
    "compare": lambda folder, out: (cli.main, ["compare", str(folder), "--out", str(out)]),
    "audit": lambda folder, out: (cli.main, ["audit", "run=%s" % folder]),
    "export": lambda folder, out: (cli.main, ["export", "run=%s" % folder, "out=%s.pth" % out, "format=rl_games"]),
    "resume": lambda folder, out: (launch.main, ["resume=%s" % folder, "train.max_iterations=3", "plot=true"]),
    "eval": lambda folder, out: (cli.main, ["eval", "run=%s" % folder, "episodes=16"]),
    "play": lambda folder, out: (cli.main, ["play", "run=%s" % folder, "out=%s.gif" % out, "steps=3", "episodes=1"]),
    "replay-bad": lambda folder, out: (cli.main, ["replay-bad", "run=%s" % folder, "out=%s" % out]),
}
TYPES = (
    '{"status": [], "reason": {}, "since": [], "pid": "x", "host": 3, "process_start": [], "writing": "yes",'
    ' "started": {}, "seed": {}, "task": [], "algo": 3, "evaluation": 3, "final": [1], "policies": {},'
    ' "env_steps": "x", "command": 3, "git": 7, "resumes": 3, "warnings": "none", "iterations": [],'
    ' "best_return_task": {}}'
)
INNER = (
    '{"status": "running", "pid": -1, "started": "soon", "resumes": [1, null, {"git": []}], "warnings": [3],'
    ' "evaluation": {"pi": 3, "pi_h": [], "episodes": "x"}, "final": {"return_task/pi": []}, "policies": [1, [], "pi"]}'
)
ESCAPES = '"\\u001b]0;owned\\u0007\\u001b[2J\\u202e"'
RECORDS = {
    "deep": "[" * 100_000,
    "types": TYPES,
    "inner types": INNER,
    "escapes": '{"status": %s, "reason": %s, "started": %s, "task": %s, "pid": %s, "host": %s}' % ((ESCAPES,) * 6),
    "huge numbers": '{"seed": %s, "env_steps": %s, "pid": 1e999}' % ("9" * 4000, "9" * 4000),
    "digits without end": '{"seed": %s}' % ("9" * 5000),
    "a list": "[1, 2]",
    "truncated": '{"a": ',
    "binary": "\x00\x01\ufffd",
    "NaN": '{"seed": NaN, "status": NaN, "pid": NaN}',
}
FILES = ("status.json", "metadata.json", "summary.json", ".lock")
TABLES = {
    "binary": bytes(range(256)),
    "words": b"iteration,env_steps,return_task/pi\nx,y,z\n",
    "huge": b"iteration,env_steps,return_task/pi\n1e999,1e999,-1e999\n",
    "no columns": b"a\n1\n",
    "escapes": b"iteration,\x1b[2J\n1,2\n",
    "empty": b"",
    "header only": b"iteration,env_steps\n",
    "wide": b"iteration" + b",a" * 100_000 + b"\n",
    "a quote": b'iteration,"env\n',
    "NUL": b"iteration,env_steps\n\x001,2\n",
    "formula": b"iteration,=cmd()\n1,2\n",
    "a column twice": b"iteration,iteration\n1,2\n",
    "backwards": b"iteration,env_steps,return_task/pi\n3,9,1\n1,2,3\n",
}
QUICK = ("compare", "audit", "export", "resume")
SLOW = pytest.mark.slow


def cases(contents, files, often):
    return [
        pytest.param(command, file, kind, marks=[] if command in QUICK and kind in often else [SLOW])
        for command in COMMANDS
        for file in files
        for kind in contents
    ]


def assert_right_or_one_sentence(capfd, run, tmp_path, command):
    main, arguments = COMMANDS[command](run, tmp_path / "out")
    code, out, err = said(capfd, main, arguments)
    assert code in (0, 2) and (code == 0 or err.count("\n") == 1), (code, err)
    assert not set("\x1b\x07\u202e") & set(out + err), ascii(out + err)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("command", "file", "kind"), cases(RECORDS, FILES, ("deep", "types", "inner types", "escapes", "huge numbers"))
)
def test_a_record_may_hold_anything(capfd, run, tmp_path, command, file, kind):
    (run / file).write_text(RECORDS[kind])
    assert_right_or_one_sentence(capfd, run, tmp_path, command)


@pytest.mark.parametrize(
    ("command", "file", "kind"), cases(TABLES, ("metrics.csv",), ("binary", "words", "huge", "no columns", "escapes"))
)
def test_a_table_may_hold_anything(capfd, run, tmp_path, command, file, kind):
    (run / file).write_bytes(TABLES[kind])
    assert_right_or_one_sentence(capfd, run, tmp_path, command)


@pytest.mark.parametrize("given", ["run_root", "heuristic", "task", "checkpoint", "resume"])
def test_a_name_too_long_for_a_path_is_one_sentence(capfd, tmp_path, given):
    root = [] if given == "run_root" else ["run_root=%s" % tmp_path]
    code, _, err = said(capfd, launch.main, [*SMALL, *root, "%s=./%s" % (given, "a" * 999)])
    assert code == 2 and err.count("\n") == 1, (code, err)


@pytest.mark.parametrize("command", ["compare", "audit", "export", "eval", "play", "replay-bad"])
def test_a_run_whose_name_is_too_long_is_one_sentence(capfd, tmp_path, command):
    main, arguments = COMMANDS[command]("a" * 999, tmp_path / "out")
    code, _, err = said(capfd, main, arguments)
    assert code == 2 and err.count("\n") == 1, (code, err)


NAMES = ("task__name", "algo__name", "heuristic", "run_root", "device", "sim__name", "budget", "potential")


@pytest.mark.parametrize(
    ("command", "key"), [pytest.param(c, k, marks=[] if c in QUICK else [SLOW]) for c in COMMANDS for k in NAMES]
)
def test_names_do_nothing_to_a_terminal(capfd, run, tmp_path, command, key):
    changed(run, **{key: "\x1b]0;owned\x07\x1b[2J\u202e"})
    assert_right_or_one_sentence(capfd, run, tmp_path, command)


@pytest.mark.parametrize("kind", ["deep", "types", "inner types", "huge numbers"])
@pytest.mark.parametrize("file", FILES[:3])
def test_the_python_api_reads_them_too(run, file, kind):
    (run / file).write_text(RECORDS[kind])
    found = hepo_isaac.Run(run)
    assert isinstance(found.summary, dict) and isinstance(found.metadata, dict) and isinstance(found.final, dict)
    assert isinstance(found.status, str) and isinstance(found.best_task_return, float) and repr(found)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit(77)",))


@pytest.mark.parametrize("kind", ["a pickle", "another form", "text", "empty"])
def test_states_of_bad_worlds_may_hold_anything(capfd, run, tmp_path, kind):
    folder = run / "bad_worlds"
    folder.mkdir(exist_ok=True)
    file = folder / "iteration_000002_env_3.pt"
    held = {"a pickle": Bomb(), "another form": {"env": "x", "dof_pos": 3}}
    if kind in held:
        torch.save(held[kind], file)
    else:
        file.write_text("hello" if kind == "text" else "")
    assert_right_or_one_sentence(capfd, run, tmp_path, "replay-bad")


@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "/etc/passwd", "..", "best.pt/../../x", "\x1b[2J", "a" * 999]
)
@pytest.mark.parametrize("command", ["export", "play", "eval"])
def test_a_checkpoint_is_one_of_the_run(capfd, run, tmp_path, command, name):
    main, arguments = COMMANDS[command](run, tmp_path / "out")
    code, out, err = said(capfd, main, [*arguments, "checkpoint=%s" % name])
    assert code == 2 and err.count("\n") == 1 and not set("\x1b") & set(out + err), (code, err)
