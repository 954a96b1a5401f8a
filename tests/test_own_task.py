"""docs/own_task.md, run as it stands: outside the checkout, with an installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own_task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"\*\*(\S+)\*\*\n\n```\w+\n(.*?)```", PAGE, re.S))
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    for line in block.splitlines()
    if line.strip()
]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder with the page's files and a shell in which hepo-isaac and pip are those of an environment without the
    checkout: run(command) returns what the command printed."""
    home = tmp_path_factory.mktemp("newcomer")
    site, programs, work = home / "site", home / "bin", home / "work"
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(home)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    zipfile.ZipFile(home / done.stdout.strip().splitlines()[-1]).extractall(site)
    programs.mkdir()
    start = "import sys; sys.path[:] = [p for p in sys.path if p != %r]; " % str(ROOT)
    program = start + "import hepo_isaac.cli as c; assert c.__file__.startswith(%r); sys.exit(c.main())" % str(site)
    # the network is not asked: what the package needs is here
    options = "--quiet --no-deps --no-build-isolation --no-index --target %s" % site
    scripts = {
        "hepo-isaac": "exec %s -c '%s' \"$@\"" % (sys.executable, program.replace("'", '"')),
        "pip": 'shift; exec %s -m pip install %s "$@"' % (sys.executable, options),
    }
    for name, text in scripts.items():
        (programs / name).write_text("#!/bin/bash\n" + text + "\n")
        (programs / name).chmod(0o755)
    work.mkdir()
    for name, text in FILES.items():
        (work / name).write_text(text)
    env = {**os.environ, "PATH": "%s:%s" % (programs, os.environ["PATH"]), "PYTHONPATH": str(site), "COLUMNS": "200"}

    def run(command, status=0):
        done = subprocess.run(["bash", "-c", command], cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == status, command + "\n" + done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def short(command):
    """The same with eight iterations of training: every environment ends an episode."""
    shorter = " train.max_iterations=8 num_envs=64" if " train " in command else ""
    return command.replace("episodes=100", "episodes=8").replace("seeds=5", "seeds=2") + shorter


def test_the_page_has_what_it_needs():
    assert set(FILES) == {"arm.xml", "reach.py", "Reach.yaml", "pyproject.toml"}
    assert sum(c.startswith("hepo-isaac train") for c in COMMANDS) == 3


def test_every_command_runs_where_there_is_no_checkout(newcomer):
    """Films are a test of their own (tests/runs/test_video.py), and need a way to draw."""
    for command in COMMANDS:
        if " play " not in command:
            newcomer(short(command))
    listed = newcomer("hepo-isaac tasks --long")
    assert re.search(r"Reach\s+│ 10/2", listed) and "default, busy" in listed


@pytest.mark.slow
def test_it_learns_as_the_page_says(newcomer):
    newcomer("hepo-isaac train task=./reach.py:Reach algo=hepo run_root=whole evaluation_episodes=100")
    summary = newcomer("cat whole/Reach/hepo/*/summary.json")
    score = float(re.search(r'"evaluation":.*?"return_task": ([0-9.]+)', summary, re.S).group(1))
    assert score > 0.4
    newcomer("hepo-isaac play run=$(ls -d whole/Reach/hepo/*)")
    newcomer("test -s whole/Reach/hepo/*/video.mp4")
