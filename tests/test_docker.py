"""What the images promise, read from their files; their two scripts are run, with stand-ins for what they call."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
IMAGES = {"Dockerfile": "constraints.txt", "isaacgym.Dockerfile": "constraints-py38.txt"}
PACKAGE = "IsaacGym_Preview_4_Package.tar.gz"


def instructions(text):
    """[(instruction, arguments)] of a Dockerfile: comments dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text):
    """The instructions of every stage, each from its FROM on."""
    found = []
    for instruction in instructions(text):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def faults(text, lock):
    """What an image breaks of its promises."""
    found = []
    steps = instructions(text)
    for operation, arguments in steps:
        if operation == "FROM" and not re.match(r"\S+:\S*\d{8}\S*( AS \w+)?$", arguments):
            found.append("not pinned to a dated release: " + arguments)
        if operation != "RUN":
            continue
        for command in re.split(r"&&|;|\|", arguments):
            if "pip install" in command and "-c %s " % lock not in command:
                found.append("installs without the lock: " + command)
            if "pip install" in command and "--no-cache-dir" not in command:
                found.append("keeps pip's downloads: " + command)
            if "apt-get install" in command and "--no-install-recommends" not in command:
                found.append("installs what apt recommends: " + command)
        if "apt-get update" in arguments and "rm -rf /var/lib/apt/lists/*" not in arguments:
            found.append("keeps apt's lists")
    last = stages(text)[-1]
    lists = [
        k
        for k, (_, arguments) in enumerate(last)
        if "--output-file /opt/hepo/sbom.cdx.json /opt/hepo/bin/python" in arguments
    ]
    if not lists or any("/opt/hepo" in a or a.startswith("pip") for _, a in last[lists[-1] + 1 :]):
        found.append("does not list what it holds, after everything is in it")
    users = [arguments for operation, arguments in last if operation == "USER"]
    if not users or not re.match(r"[1-9]\d*:[1-9]\d*$", users[-1]):
        found.append("ends as root, or as a user whose number is unknown")
    elif last[-1][0] != "ENTRYPOINT" or last[-2][0] != "USER":
        found.append("goes on after it has given up root")
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_images_keep_their_promises(name):
    assert faults((DOCKER / name).read_text(), IMAGES[name]) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bookworm-20251229-slim", "bookworm-slim"),
        ("USER 1000:1000", "USER root"),
        ("--output-file /opt/hepo/sbom.cdx.json", "--output-file sbom.cdx.json"),
        ("COPY --chmod=755", "RUN pip install --no-cache-dir -c constraints.txt rich\nCOPY --chmod=755"),
        ("USER 1000:1000\n", ""),
        ("USER 1000:1000\n", "USER 1000:1000\nUSER 0:0\n"),
        ("USER 1000:1000\n", "USER 1000:1000\nRUN true\n"),
        ("--no-deps -c constraints.txt", "--no-deps"),
        ("--no-cache-dir --no-deps", "--no-deps"),
        (" --no-install-recommends", ""),
        ("&& rm -rf /var/lib/apt/lists/*", ""),
    ],
)
def test_a_broken_promise_is_found(old, new):
    text = (DOCKER / "Dockerfile").read_text()
    assert old in text
    assert len(faults(text.replace(old, new), "constraints.txt")) == 1


def copied(name):
    """Paths that the image takes from the project."""
    for operation, arguments in instructions((DOCKER / name).read_text()):
        words = [word for word in arguments.split() if not word.startswith("--")]
        if operation == "COPY" and "--from=" not in arguments:
            yield from words[:-1]


def let_through(name):
    """Paths that the image's ignore file lets through; it begins with letting nothing through."""
    special = DOCKER / (name + ".dockerignore")
    lines = (special if special.exists() else ROOT / ".dockerignore").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_copied_exists_and_is_let_through(name):
    allowed = let_through(name)
    sources = {source.replace("[z]", "z") for source in copied(name)}
    for source in sources:
        assert any(source == path or source.startswith(path + "/") for path in allowed), source
        assert (ROOT / source).exists() or source.endswith(PACKAGE)
    for path in allowed:
        assert any(source == path or source.startswith(path + "/") for source in sources), path


def test_nvidias_package_stays_out():
    """Of git and of the image that can be passed on; of the other, only its parts that a run needs enter."""
    assert not any("IsaacGym" in source for source in copied("Dockerfile"))
    assert not any(("docker/" + PACKAGE).startswith(path) for path in let_through("Dockerfile"))
    done = subprocess.run(["git", "check-ignore", "-q", "docker/" + PACKAGE], cwd=ROOT)
    assert done.returncode in (0, 128)  # 128: not a checkout
    first, last = stages((DOCKER / "isaacgym.Dockerfile").read_text())
    names = [operation for operation, _ in first]
    assert names == ["FROM", "COPY", "RUN"]
    assert "IsaacGym" in first[1][1]
    assert "unpack_isaacgym.sh" in first[2][1]
    assert not any("IsaacGym" in arguments for _, arguments in last)


def environment(name):
    """The variables that an image sets."""
    (text,) = [arguments for operation, arguments in instructions((DOCKER / name).read_text()) if operation == "ENV"]
    return dict(re.findall(r"(\w+)=(\S+)", text))


def test_environments_agree():
    """The images differ in their engines; where a run writes and what the driver gives is the same."""
    first, second = map(environment, IMAGES)
    for key in ("PATH", "NVIDIA_DRIVER_CAPABILITIES", "MUJOCO_GL", "HOME", "USER", "XDG_CACHE_HOME", "CUDA_CACHE_PATH"):
        assert first[key] == second[key]
    for key, value in {**first, **second}.items():
        if key.endswith(("_CACHE_PATH", "_CACHE_DIR", "_CACHE_HOME", "_EXTENSIONS_DIR")):
            assert value.split("/")[1] == "cache"


def unpack(folder, target):
    target.mkdir()
    script = ["sh", str(DOCKER / "unpack_isaacgym.sh"), str(folder), str(target)]
    return subprocess.run(script, capture_output=True, text=True)


def archive(folder, names, mode=0o755):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
        (folder / name).chmod(mode)
        (folder / name).parent.chmod(mode)
    with tarfile.open(folder / PACKAGE, "w:gz") as package:
        package.add(folder / "isaacgym", "isaacgym")


def test_isaacgym_is_unpacked(tmp_path):
    archive(tmp_path, ["isaacgym/python/setup.py", "isaacgym/assets/a.urdf", "isaacgym/docs/index.html"], mode=0o700)
    done = unpack(tmp_path, tmp_path / "opt")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "opt/isaacgym").iterdir()} == {"python", "assets"}
    for path in (tmp_path / "opt").rglob("*"):
        assert path.stat().st_mode & 0o005 == 0o005, path  # everybody may read files and enter folders


def test_a_missing_or_wrong_package_is_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / PACKAGE).write_text("<html>Sign in</html>")
    (tmp_path / "other").mkdir()
    archive(tmp_path / "other", ["isaacgym/python/readme.txt", "isaacgym/assets/a.urdf"])
    for name, reason in (("empty", "is missing"), ("page", "is not NVIDIA's archive"), ("other", "holds no")):
        done = unpack(tmp_path / name, tmp_path / ("opt_" + name))
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1
        assert last.startswith("docker/%s %s" % (PACKAGE, reason))
        assert "https://developer.nvidia.com/isaac-gym" in last
        assert "folder docker/" in last


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["hepo-isaac", "--help"]),
        (["--version"], ["hepo-isaac", "--version"]),
        (["task=Ant", "algo=hepo"], ["hepo-isaac", "train", "task=Ant", "algo=hepo"]),
        (["-m", "seed=1,2"], ["hepo-isaac", "train", "-m", "seed=1,2"]),
        (["doctor"], ["hepo-isaac", "doctor"]),
        (["play", "run=runs/a b"], ["hepo-isaac", "play", "run=runs/a b"]),
        (["python", "-c", "pass"], ["python", "-c", "pass"]),
        (["bash"], ["bash"]),
    ],
)
def test_entrypoint(arguments, expected, tmp_path):
    for name in ("hepo-isaac", "python", "bash"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%%s\\n" %s "$@"\n' % name)
        (tmp_path / name).chmod(0o755)
    env = dict(os.environ, PATH="%s%s%s" % (tmp_path, os.pathsep, os.environ["PATH"]))
    done = subprocess.run(["sh", str(DOCKER / "entrypoint.sh"), *arguments], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == expected


def test_compose():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"train", "train-isaacgym"}
    for service, image in zip(services.values(), IMAGES):
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert service["build"]["dockerfile"] == "docker/" + image
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert service["user"] == "${HOST_UID:-1000}:${HOST_GID:-1000}"
        volumes = dict(volume.split(":") for volume in service["volumes"])
        assert volumes.pop("../runs") == "/workspace/runs"
        (cache,) = volumes
        assert cache in compose["volumes"]
    assert services["train-isaacgym"]["profiles"] == ["isaacgym"]
    assert "sim=isaacgym" in services["train-isaacgym"]["command"]


# The condition under which the extra [dev] brings it, and so make test.
HAS_HADOLINT = sys.platform == "linux" and platform.machine() == "x86_64"


@pytest.mark.skipif(not HAS_HADOLINT, reason="hadolint has a wheel for Linux on x86_64 only")
def test_hadolint():
    hadolint = shutil.which("hadolint", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    assert hadolint, "hadolint is not installed: pip install -c constraints.txt -e '.[dev]'"
    command = [hadolint, "--no-color", "--format", "json", *(str(DOCKER / name) for name in IMAGES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout) == []
