"""What an installation puts on a machine: one name, complete, working away from the checkout; and what it pins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import hepo_isaac
from hepo_isaac import locate

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    code = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.strip().splitlines()[-1]


def test_the_wheel_holds_one_name_and_everything_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = "hepo_isaac-%s.dist-info" % hepo_isaac.__version__
    assert {name.split("/")[0] for name in names} == {"hepo_isaac", info}
    ours = {name for name in names if name.startswith("hepo_isaac/")}
    expected = set()
    for folder, inside in (("hepo_isaac", "hepo_isaac"), ("tasks", "hepo_isaac/tasks"), ("cfg", "hepo_isaac/cfg")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add("%s/%s" % (inside, path.relative_to(ROOT / folder).as_posix()))
    assert ours == expected
    assert {"hepo_isaac/runs/launch.py", "hepo_isaac/tasks/assets/panda.xml", "hepo_isaac/cfg/config.yaml"} <= ours


def test_an_installed_copy_works_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # the unpacked wheel comes before the editable install, and the checkout must not be needed
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p != %r]; import hepo_isaac.cli as c; "
        "from hepo_isaac import locate; assert locate.bundled(); assert c.__file__.startswith(%r), c.__file__; "
        "assert locate.task_class('FrankaCabinet').__module__ == 'hepo_isaac.tasks.franka_cabinet'; "
        "sys.exit(c.main(['tasks']))" % (str(ROOT), str(site))
    )
    env = dict(os.environ, PYTHONPATH=str(site))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FrankaCabinet" in done.stdout


def test_names_of_tasks_and_their_modules():
    assert locate.module_name("FrankaCabinet") == "franka_cabinet"
    assert locate.module_name("Ant") == "ant"
    assert locate.module_name("HandOverAB") == "hand_over_ab"
    for name in locate.task_names():
        assert locate.task_class(name).name == name


def requirements():
    for extra in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in extra:
            name, _, version = requirement.partition("==")
            yield name, version


def test_every_dependency_is_pinned_once_and_the_same():
    lowered = {name.lower().replace("_", "-"): version for name, version in PINS.items()}
    for name, version in requirements():
        assert name.lower() in lowered, name
        assert version in ("", lowered[name.lower()])
    assert PINS["torch"] == "2.13.0"  # no +cpu: every machine takes its own wheel


def test_constraints_hold_nothing_but_pins():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line


def test_citation_and_version_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hepo_isaac.__version__
    assert any("2507.05328" in r["identifiers"][0]["value"] for r in citation["references"])


@pytest.mark.parametrize("target", ["train", "test", "test-slow", "lint", "bench", "clean"])
def test_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
