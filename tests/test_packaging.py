"""What an installation puts on a machine: one name, complete, working away from the checkout; and what it pins."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import hepo_isaac
from hepo_isaac import locate

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"3.11": ROOT / "constraints.txt", "3.8": ROOT / "constraints-py38.txt"}
ONLY_311 = {"cuda", "dev", "sweep-joblib", "sweep-slurm", "sweep-ray"}  # extras that Python 3.8 does without


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
    assert {
        "hepo_isaac/runs/launch.py",
        "hepo_isaac/py.typed",
        "hepo_isaac/api/make.py",
        "hepo_isaac/tasks/robots/assets/panda.xml",
        "hepo_isaac/cfg/config.yaml",
    } <= ours


def test_an_installed_copy_works_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # the unpacked wheel comes before the editable install, and the checkout must not be needed
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p != %r]; import hepo_isaac.cli as c; "
        "from hepo_isaac import locate; assert locate.bundled(); assert c.__file__.startswith(%r), c.__file__; "
        "assert locate.task_class('FrankaCabinet').__module__ == 'hepo_isaac.tasks.robots.franka_cabinet'; "
        "sys.exit(c.main(['tasks']))" % (str(ROOT), str(site))
    )
    env = dict(os.environ, PYTHONPATH=str(site))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FrankaCabinet" in done.stdout


def test_every_task_has_a_yaml_and_every_yaml_a_task():
    assert sorted(locate.tasks_package().MODULES) == locate.task_names()
    for name in locate.task_names():
        assert locate.task_class(name).name == name


def pins(lock):
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", lock.read_text(), re.M))


def requirements(python):
    """(name, version or "") of everything that an installation on this Python can ask for."""
    extras = PROJECT["optional-dependencies"]
    lists = [PROJECT["dependencies"]]
    lists += [wanted for extra, wanted in extras.items() if not (python == "3.8" and extra in ONLY_311)]
    for text in itertools.chain(*lists):
        wanted = Requirement(text)
        environment = {"python_version": python, "platform_machine": "x86_64"}
        if wanted.marker is None or wanted.marker.evaluate(environment):
            yield wanted.name, str(wanted.specifier).replace("==", "")


@pytest.mark.parametrize("python", LOCKS)
def test_every_dependency_is_pinned_once_and_the_same(python):
    lowered = {name.lower().replace("_", "-"): version for name, version in pins(LOCKS[python]).items()}
    names = [name for name, _ in requirements(python)]
    for name, version in requirements(python):
        assert name.lower() in lowered, name
        assert version in ("", lowered[name.lower()])
    assert names.count("torch") == names.count("mujoco") == names.count("gymnasium") == 1
    assert lowered["torch"] == {"3.11": "2.13.0", "3.8": "2.4.1"}[python]  # no +cpu: every machine takes its own wheel


def test_versions_of_python():
    """3.8 for Isaac Gym, 3.11 and newer for everything else; each has a hatchling that builds for it."""
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in ("3.7.9", "3.8.10", "3.9.19", "3.10.14", "3.11.0", "3.13.1") if v in wanted] == [
        "3.8.10",
        "3.11.0",
        "3.13.1",
    ]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for python, lock in LOCKS.items():
        (backend,) = [r for r in map(Requirement, build) if r.marker.evaluate({"python_version": python})]
        assert str(backend.specifier) == "==" + pins(lock)["hatchling"]


@pytest.mark.parametrize("python", LOCKS)
def test_constraints_hold_nothing_but_pins(python):
    for line in LOCKS[python].read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line


def test_the_python_38_environment_says_what_it_lacks(tmp_path):
    command = ["make", "test-py38", "PY38=no-such-python", "VENV38=%s" % (tmp_path / "venv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.8" in done.stderr
    assert "PY38=" in done.stderr


def test_citation_and_version_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hepo_isaac.__version__
    assert any("2507.05328" in r["identifiers"][0]["value"] for r in citation["references"])


@pytest.mark.parametrize(
    "target", ["train", "test", "test-slow", "test-py38", "lint", "audit", "sbom", "bench", "clean"]
)
def test_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_sbom_lists_every_pin(tmp_path):
    pytest.importorskip("cyclonedx_py")
    for lock in LOCKS.values():
        out = tmp_path / "sbom.json"
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "cyclonedx_py",
            "requirements",
            "--output-file",
            str(out),
            str(lock),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(out.read_text())
        assert found["bomFormat"] == "CycloneDX"
        assert {c["name"]: c["version"] for c in found["components"]} == pins(lock)


def test_a_vulnerability_that_make_audit_passes_over_is_explained():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    told = (ROOT / "docs" / "security.md").read_text()
    for name in ("KNOWN", "KNOWN38"):
        (line,) = re.findall(r"^%s +:=(.*)$" % name, makefile, re.M)
        assert line.split()
        for identifier in line.split():
            assert re.fullmatch(r"(CVE|PYSEC|GHSA)-[0-9a-z-]+", identifier)
            assert identifier in told, identifier
