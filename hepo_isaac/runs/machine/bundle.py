"""``hepo-isaac bundle``: everything a GPU node without a network needs, as a folder to copy or as parts to bring.

Run it where there is a network and no GPU. It takes the packages in the versions installed here, for the node's Python,
cut down to what is imported; the project; Warp's library for one GPU architecture; and Warp's kernels of the tasks,
compiled beforehand. With --max-part the result is compressed into parts of at most that size, with a script that joins
them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import hepo_isaac
from hepo_isaac.arguments import Parser
from hepo_isaac.errors import UserError, unknown
from hepo_isaac.locate import PACKAGE, robot_tasks
from hepo_isaac.runs.machine import fatbin, kernels, packages, parts, project, slim
from hepo_isaac.runs.machine.ticker import Ticker
from hepo_isaac.runs.record.metadata import git_state, now
from hepo_isaac.runs.train.progress import duration
from hepo_isaac.sim.engines import CUDA_ENGINE, ENGINES

WARP_LIBRARY = "site/warp/bin/warp.so"
ROOM = 2 << 30  # bytes of disk while a bundle is made: wheels, packages as they come, kernels, parts
MIB = parts.MIB
_WORK = ".making-"


@dataclass(frozen=True)
class Request:
    """What the command line asks for, checked."""

    out: Path
    arch: int
    python: str
    tasks: List[str]
    host_has: List[str]
    max_part: Optional[int]
    fast: bool


def main(arguments: Sequence[str]) -> int:
    """Make a bundle; returns the exit code."""
    request = check(_parser().parse_args(list(arguments)))
    ticker = Ticker("bundle", 1)
    with _work_folder(request.out) as work:
        tree = work / "tree"
        about = make_tree(request, tree, work)
        if request.max_part is None:
            _replace(request.out, tree)
        else:
            cut = work / "parts"
            print("parts of at most %.1f MiB" % (request.max_part / MIB), flush=True)
            made = parts.write_parts(tree, cut, request.max_part, WARP_LIBRARY, request.fast)
            _replace(request.out, cut)
    took = duration(ticker.seconds())
    if request.max_part is None:
        print("%s: %.1f MiB in %s; next: . %s/env" % (request.out, _total(about) / MIB, took, request.out))
        return 0
    sizes = ", ".join("%s/%s %.1f MiB" % (request.out, n, s / MIB) for n, s in zip(made.names, made.sizes))
    print("%s in %s; on the node: bash a/join.sh %s TO" % (sizes, took, " ".join(made.names)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("bundle", "Make a folder, or parts, for GPU nodes without a network.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; a bundle that is there is replaced")
    parser.add_argument(
        "--arch", default="sm_90", help="GPU architecture: sm_80 A100, sm_89 L40S, sm_90 H100 (default)"
    )
    parser.add_argument("--python", default="3.12", help="the node's Python; default 3.12")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="whose kernels to compile; default all robot tasks")
    parser.add_argument("--host-has", nargs="*", default=["torch", "numpy"], help="packages that the node has")
    parser.add_argument("--max-part", help="compress into parts of at most this size, e.g. 60MiB")
    parser.add_argument("--fast", action="store_true", help="compress for seconds, not minutes; half as large again")
    return parser


def check(args: argparse.Namespace) -> Request:
    """The request, after everything that can be known to fail has been looked at.

    Raises:
        UserError: an argument is malformed, something is not installed, or OUT cannot be used.
    """
    python = packages.parse_python(args.python)
    limit = None if args.max_part is None else parts.parse_size(args.max_part)
    tasks = robot_tasks(args.tasks)
    out = args.out.expanduser().absolute()
    _check_out(out)
    try:
        library = warp_library()
    except UserError:
        known_arch(args.arch, supported())  # a wrong argument is told before what is not installed
        raise
    arch = check_arch(args.arch, library)
    return Request(out, arch, python, tasks, list(args.host_has), limit, args.fast)


def warp_library() -> Path:
    """Warp's library in this environment.

    Raises:
        UserError: Warp, or MuJoCo Warp, is not installed.
    """
    for module in ENGINES[CUDA_ENGINE].modules:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise UserError(
                "hepo-isaac bundle needs %s, which is not installed; pip install 'hepo-isaac[cuda]'" % module
            )
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "bin" / "warp.so"


def check_arch(text: str, library: Path) -> int:
    """The number of an architecture that Warp's library has machine code for and that kernels can be compiled for.

    Raises:
        UserError: there is none of that name; the message lists those there are.
    """
    if not library.is_file():
        raise UserError("%s is missing; expected Warp for Linux, pip install 'hepo-isaac[cuda]'" % library)
    held = fatbin.architectures(library.read_bytes(), library.name)
    return known_arch(text, [sm for sm in held if sm in supported()])


def supported() -> List[int]:
    """Numbers of the architectures that kernels can be compiled for."""
    from hepo_isaac.sim.mujoco.imitated_driver import ARCHITECTURES

    return list(ARCHITECTURES)


def known_arch(text: str, numbers: Sequence[int]) -> int:
    """The number of the architecture ``text`` names, "sm_90" or "90".

    Raises:
        UserError: it is none of ``numbers``; the message lists them.
    """
    match = re.match(r"^(?:sm_)?(\d+)$", text)
    if match is None or int(match.group(1)) not in numbers:
        raise unknown("--arch", text, ["sm_%d" % number for number in numbers])
    return int(match.group(1))


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("%s is a file; expected a new folder, an empty one or a bundle to replace" % out)
    inside = [p for p in out.iterdir() if not p.name.startswith(_WORK)] if out.is_dir() else []
    if inside and not is_bundle(out):
        raise UserError("%s is not empty and holds no bundle; choose another folder or empty it" % out)
    there = next(p for p in (out, *out.parents) if p.is_dir())
    if not os.access(str(there), os.W_OK):
        raise UserError("%s cannot be written to; choose another folder" % there)
    free = shutil.disk_usage(str(there)).free
    if free < ROOM:
        raise UserError(
            "%s has %.1f GiB free; expected %.1f GiB while the bundle is made: make room or choose another disk"
            % (there, free / 2**30, ROOM / 2**30)
        )


def is_bundle(folder: Path) -> bool:
    """Whether a folder is what this command makes, in either form."""
    return (folder / project.SITE / project.DESCRIPTION).is_file() or (folder / "a" / parts.MANIFEST).is_file()


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder inside ``out``, on the same disk; what earlier, killed commands left is removed."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob(_WORK + "*"):
        shutil.rmtree(str(path))
    try:
        with tempfile.TemporaryDirectory(prefix=_WORK, dir=str(out)) as work:
            yield Path(work)
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _replace(out: Path, made: Path) -> None:
    """Put what is in ``made`` into ``out``, in place of the bundle that was there."""
    for path in out.iterdir():
        if path.name.startswith(_WORK):
            continue
        if path.is_dir():
            shutil.rmtree(str(path))
        else:
            path.unlink()
    for path in made.iterdir():
        path.rename(out / path.name)


def make_tree(request: Request, tree: Path, work: Path) -> Dict[str, Any]:
    """The relocatable folder; returns what bundle.json says."""
    site = tree / project.SITE
    site.mkdir(parents=True)
    taken, dropped = _packages(request, site, work / "wheels")
    project.install_project(site)
    slimmed = fatbin.keep_in_file(tree / WARP_LIBRARY, request.arch)
    print("warp.so for sm_%d: %d fat binaries, %.1f MiB of machine code, %.1f MiB of others zeroed" % (
        request.arch, slimmed.count, slimmed.kept / MIB, slimmed.zeroed / MIB), flush=True)  # fmt: skip
    print(
        "Warp's kernels of %s for sm_%d (a minute for the first)" % (", ".join(request.tasks), request.arch), flush=True
    )
    cache = work / "cache"
    kernels.compile_kernels(request.tasks, request.arch, cache)
    binaries = kernels.keep_binaries(cache, request.arch, tree / project.KERNELS)
    about = describe(request, taken)
    sizes = {name: slim.size_of(tree / name) for name in (project.SITE, WARP_LIBRARY, project.KERNELS)}
    about.update(kernel_binaries=binaries, bytes=sizes, dropped_bytes=dropped)
    project.write_top(tree, about)
    print("site %.1f MiB, of which warp.so %.1f MiB; kernels %.1f MiB in %d files" % (
        *(sizes[n] / MIB for n in (project.SITE, WARP_LIBRARY, project.KERNELS)), binaries), flush=True)  # fmt: skip
    return about


def _packages(request: Request, site: Path, wheels: Path) -> Tuple[List[packages.Package], Dict[str, int]]:
    """Fetch, unpack and slim; returns what was taken and what was dropped."""
    taken, unneeded = packages.needed(request.python, request.host_has, slim.unused_names())
    for name in unneeded:
        print("note: nothing here needs %s, which --host-has names" % name)
    names = ", ".join("%s %s" % (p.name, p.version) for p in taken)
    print("%d packages for Python %s: %s" % (len(taken), request.python, names), flush=True)
    wheels.mkdir()
    for wheel in packages.fetch(taken, request.python, wheels, Ticker("packages", len(taken))):
        packages.unpack(wheel, site)
    dropped = slim.drop(site)
    saved = slim.strip(site)
    print("dropped %.1f MiB of them, and %.1f MiB of symbols" % (sum(dropped.values()) / MIB, saved / MIB), flush=True)
    return taken, dropped


def describe(request: Request, taken: Sequence[packages.Package]) -> Dict[str, Any]:
    """What a reader needs to make this bundle again."""
    state = git_state(PACKAGE.parent) or {"commit": None, "dirty": None}
    return {
        "id": uuid.uuid4().hex[:12],
        "version": hepo_isaac.__version__,
        **state,
        "date": now(),
        "arch": "sm_%d" % request.arch,
        "python": request.python,
        "tasks": request.tasks,
        "host_has": request.host_has,
        "packages": {p.name: p.version for p in taken},
    }


def _total(about: Dict[str, Any]) -> int:
    return int(about["bytes"][project.SITE] + about["bytes"][project.KERNELS])
