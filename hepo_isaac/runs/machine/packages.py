"""The packages that a node without a network needs: which, in which versions, fetched as wheels with pip."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from hepo_isaac.errors import UserError
from hepo_isaac.runs.machine.ticker import Ticker

PROJECT = "hepo-isaac"
EXTRAS = ("cuda",)
OLDEST_PYTHON = (3, 11)  # mujoco-warp's
# pip takes the first that fits: the older the C library, the more nodes can load the wheel
GLIBC = (17, 24, 27, 28, 31, 34, 35)
PLATFORMS = ["manylinux1_x86_64", "manylinux2014_x86_64", *("manylinux_2_%d_x86_64" % n for n in GLIBC), "any"]


@dataclass(frozen=True)
class Package:
    """A pinned package, and whose requirement it is."""

    name: str
    version: str
    needed_by: str


def parse_python(text: str) -> str:
    """``3.12`` from the command line.

    Raises:
        UserError: it is no such version, or one that mujoco-warp does not have wheels for.
    """
    match = re.match(r"^(\d+)\.(\d+)$", text)
    if match is None or (int(match.group(1)), int(match.group(2))) < OLDEST_PYTHON:
        raise UserError("--python %s: expected the node's Python as 3.11 or newer, e.g. --python 3.12" % text)
    return text


def environment_of(python: str) -> Dict[str, str]:
    """What environment markers see on the target: CPython of that version on Linux x86-64."""
    found: Dict[str, str] = {k: str(v) for k, v in default_environment().items()}
    found.update(
        implementation_name="cpython",
        implementation_version=python + ".0",
        os_name="posix",
        platform_machine="x86_64",
        platform_python_implementation="CPython",
        platform_system="Linux",
        python_full_version=python + ".0",
        python_version=python,
        sys_platform="linux",
    )
    return found


def closure(
    roots: Sequence[str],
    environment: Mapping[str, str],
    find: Callable[[str], metadata.Distribution] = metadata.distribution,
    skip: Sequence[str] = (),
    missing_is_fine: bool = False,
) -> Dict[str, Package]:
    """Everything that ``roots`` require, and what that requires, in the versions that ``find`` knows.

    Args:
        roots: requirements such as ``hepo-isaac[cuda]``; they are part of the result.
        environment: what the target's markers see (``environment_of``).
        skip: names that are neither taken nor followed.
        missing_is_fine: leave out what is not installed.

    Raises:
        UserError: a requirement is not installed here, so that nobody knows which version to take.
    """
    found: Dict[str, Package] = {}
    seen: Set[Tuple[str, str]] = set()
    left = [(Requirement(r), "the command line") for r in roots]
    while left:
        wanted, by = left.pop(0)
        name = canonicalize_name(wanted.name)
        extras = {(name, extra) for extra in ("", *wanted.extras)} - seen
        if name in skip or not extras:
            continue
        seen |= extras
        try:
            dist = find(name)
        except metadata.PackageNotFoundError:
            if missing_is_fine:
                continue
            raise UserError(
                "%s is needed by %s on Python %s and is not installed here, so its version is unknown; pip install %s"
                % (name, by, environment["python_version"], _install(name))
            ) from None
        found.setdefault(name, Package(name, dist.version, by))
        for text in dist.requires or ():
            below = Requirement(text)
            if any(_holds(below, environment, extra) for _, extra in extras):
                left.append((below, name))
    return found


def _holds(requirement: Requirement, environment: Mapping[str, str], extra: str) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({**environment, "extra": extra})


def _install(name: str) -> str:
    return "'%s[%s]'" % (PROJECT, ",".join(EXTRAS)) if name in ("mujoco-warp", "warp-lang") else name


def needed(
    python: str,
    host_has: Sequence[str],
    unused: Sequence[str],
    find: Callable[[str], metadata.Distribution] = metadata.distribution,
) -> Tuple[List[Package], List[str]]:
    """What a bundle must hold for a host that has ``host_has`` and what these pull in.

    Args:
        unused: packages that nothing the project does imports; not taken, nor followed.

    Returns:
        the packages, sorted by name, and those names of ``host_has`` that nothing needs.
    """
    environment = environment_of(python)
    root = "%s[%s]" % (PROJECT, ",".join(EXTRAS))
    everything = closure([root], environment, find, missing_is_fine=True)
    hosts = [canonicalize_name(name) for name in host_has]
    there = closure(hosts, environment, find, missing_is_fine=True)
    skip = [*hosts, *there, *(canonicalize_name(name) for name in unused)]
    wanted = closure([root], environment, find, skip=[name for name in skip if name != PROJECT])
    del wanted[PROJECT]
    return sorted(wanted.values(), key=lambda p: p.name), [name for name in hosts if name not in everything]


def fetch(packages: Sequence[Package], python: str, folder: Path, ticker: Ticker) -> List[Path]:
    """One wheel per package for the target Python, in ``folder``.

    Raises:
        UserError: pip is missing, has no such wheel, or the package has only sources that need a compiler.
    """
    wheels = []
    for index, package in enumerate(packages):
        ticker.at(index, "%s %s" % (package.name, package.version))
        wheels.append(_download(package, python, folder) or _build(package, python, folder))
    ticker.at(len(packages), "all there")
    return wheels


def _download(package: Package, python: str, folder: Path) -> Optional[Path]:
    """The wheel from the registry, or None where there is none."""
    options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", "-d", str(folder)]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    done = _pip(["download", *options], package)
    return _wheel_of(package, folder) if done.returncode == 0 else None


def _build(package: Package, python: str, folder: Path) -> Path:
    """A wheel made from pure Python sources."""
    done = _pip(["wheel", "-w", str(folder)], package)
    wheel = _wheel_of(package, folder) if done.returncode == 0 else None
    if wheel is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(
            "pip cannot get a wheel of %s==%s for Python %s on Linux x86-64 (needed by %s): %s; name the package in "
            "--host-has if the node has it, or choose another --python"
            % (package.name, package.version, python, package.needed_by, said[-1] if said else "it says nothing")
        )
    tags = parse_wheel_filename(wheel.name)[3]
    if not any(tag.abi == "none" and tag.platform == "any" for tag in tags):
        raise UserError(
            "%s==%s has no wheel for Python %s and its sources make %s, which is for this Python alone; "
            "name it in --host-has, or choose another --python" % (package.name, package.version, python, wheel.name)
        )
    return wheel


def _pip(arguments: List[str], package: Package) -> subprocess.CompletedProcess[str]:
    pin = "%s==%s" % (package.name, package.version)
    command = [sys.executable, "-m", "pip", arguments[0], "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, *arguments[1:], pin], capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        raise UserError("this Python has no pip; %s -m ensurepip installs it" % sys.executable)
    return done


def _wheel_of(package: Package, folder: Path) -> Optional[Path]:
    for path in folder.glob("*.whl"):
        if parse_wheel_filename(path.name)[0] == canonicalize_name(package.name):
            return path
    return None


def unpack(wheel: Path, site: Path) -> None:
    """Put a wheel's modules into ``site`` as an installation would; its scripts and data files are left out."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            folder, _, rest = member.filename.partition("/")
            if folder.endswith(".data"):
                kind, _, rest = rest.partition("/")
                if kind not in ("purelib", "platlib") or not rest:
                    continue
                member.filename = rest
            archive.extract(member, str(site))
