"""The bundle for nodes without a network: what goes in, one architecture of Warp, parts and how they are joined."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from hepo_isaac.cli import main as cli
from hepo_isaac.errors import UserError
from hepo_isaac.runs.machine import bundle, fatbin, kernels, packages, parts, project, slim
from hepo_isaac.runs.machine.ticker import Ticker
from hepo_isaac.runs.record.metadata import git_state

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {
    "id": "0123456789ab",
    "version": "1",
    "commit": "c0ffee",
    "dirty": True,
    "date": "today",
    "arch": "sm_90",
    "python": "%d.%d" % sys.version_info[:2],
    "tasks": ["Ant"],
    "host_has": ["torch"],
}


# ---- packages --------------------------------------------------------------------------------------------------------

Dist = namedtuple("Dist", "version requires")
INSTALLED = {
    "hepo-isaac": Dist("1", ["torch", "Rich", "old; python_version<'3.12'", "warp-lang;extra=='cuda'", "etils[epath]"]),
    "torch": Dist("2", ["sympy", "new; python_version >= '3.12'"]),
    "sympy": Dist("3", ["mpmath"]),
    "mpmath": Dist("4", None),
    "rich": Dist("5", ["pygments (>=2,<3)", "mac; sys_platform == 'darwin'", "rich"]),
    "pygments": Dist("6", None),
    "warp-lang": Dist("1.19", ["mpmath", "docs; extra == 'docs'"]),
    "old": Dist("7", None),
    "etils": Dist("8", ["zipp; extra == 'epath'", "tree; extra == 'etree'"]),
    "zipp": Dist("9", None),
}  # fmt: skip


def find(name):
    try:
        return INSTALLED[name]
    except KeyError:
        raise metadata.PackageNotFoundError(name) from None


def names(python, host_has=(), unused=(), find=find):
    return [p.name for p in packages.needed(python, host_has, unused, find)[0]]


def test_closure_follows_extras_and_the_markers_of_the_other_python():
    everything = ["etils", "mpmath", "pygments", "rich", "warp-lang", "zipp"]
    assert names("3.12", ["torch"], ["mpmath"]) == [n for n in everything if n != "mpmath"]
    assert names("3.11") == sorted([*everything, "old", "sympy", "torch"])
    assert packages.needed("3.11", [], [], find)[0][1] == packages.Package("mpmath", "4", "warp-lang")


def test_what_the_host_has_takes_along_what_it_pulls_in_but_not_what_nobody_else_would():
    assert names("3.11", ["torch"]) == ["etils", "old", "pygments", "rich", "warp-lang", "zipp"]  # mpmath is torch's
    assert "pygments" not in names("3.11", ["Rich"])
    assert packages.needed("3.11", ["Torch", "nothing"], [], find)[1] == ["nothing"]


def test_a_requirement_of_the_other_python_that_is_not_installed_is_named():
    with pytest.raises(UserError, match="new is needed by torch on Python 3.12 .* pip install new"):
        names("3.12")
    without = {k: v for k, v in INSTALLED.items() if k != "warp-lang"}
    with pytest.raises(UserError, match=r"warp-lang .* pip install 'hepo-isaac\[cuda\]'"):
        names("3.11", find=lambda n: without[n] if n in without else find("no"))


def test_the_project_itself_needs_mujoco_and_not_what_torch_brings():
    """As installed here, with or without CUDA."""
    environment = packages.environment_of("3.13")
    there = packages.closure(["torch", "numpy"], environment, missing_is_fine=True)
    found = packages.closure(["hepo-isaac"], environment, skip=list(there), missing_is_fine=True)
    assert {"mujoco", "rl-games", "hydra-core", "antlr4-python3-runtime"} <= set(found)
    assert not {"torch", "numpy", "sympy"} & set(found)
    assert found["mujoco"].version == metadata.version("mujoco")


class Pip:
    """subprocess.run of a pip that makes the wheels it is told to, and knows no others."""

    def __init__(self, downloads=(), builds=()):
        self.of, self.commands = {"download": downloads, "wheel": builds}, []

    def __call__(self, command, **options):
        verb, pin = command[3], command[-1]
        self.commands.append(command)
        option = "-d" if verb == "download" else "-w"
        for wheel in self.of[verb]:
            if wheel.replace("_", "-").startswith(pin.replace("==", "-")):
                (Path(command[command.index(option) + 1]) / wheel).write_bytes(b"")
                return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found for %s\n" % pin)


def fetched(monkeypatch, folder, pip):
    monkeypatch.setattr(packages.subprocess, "run", pip)
    wanted = [packages.Package("a-b", "1", "c"), packages.Package("d", "2", "e")]
    return [w.name for w in packages.fetch(wanted, "3.12", folder, Ticker("packages", 2))]


def test_wheels_are_asked_for_the_other_python_and_sources_are_built(monkeypatch, tmp_path):
    pip = Pip(["a_b-1-cp312-cp312-manylinux_2_28_x86_64.whl"], ["d-2-py3-none-any.whl"])
    assert fetched(monkeypatch, tmp_path, pip) == [*pip.of["download"], *pip.of["wheel"]]
    command = pip.commands[0]
    assert command[command.index("--python-version") + 1] == "3.12"
    assert "manylinux2014_x86_64" in command and "--no-deps" in command


def test_a_package_without_a_wheel_is_named(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"wheel of d==2 for Python 3.12 .*needed by e.*No matching distribution"):
        fetched(monkeypatch, tmp_path, Pip(["a_b-1-py3-none-any.whl"]))


def test_sources_that_need_a_compiler_are_refused(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="d==2 has no wheel for Python 3.12 .* this Python alone"):
        fetched(monkeypatch, tmp_path, Pip(["a_b-1-py3-none-any.whl"], ["d-2-cp311-cp311-linux_x86_64.whl"]))


def test_unpacking_puts_purelib_in_place_and_leaves_scripts_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in ("a/__init__.py", "a-1.data/purelib/b.py", "a-1.data/scripts/run", "a-1.dist-info/METADATA"):
            wheel.writestr(name, name)
    packages.unpack(tmp_path / "a.whl", tmp_path / "site")
    found = {p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*") if p.is_file()}
    assert found == {"a/__init__.py", "b.py", "a-1.dist-info/METADATA"}


def test_slimming_keeps_what_is_imported(tmp_path):
    gone = [
        "mujoco/viewer.py",
        "mujoco/render_test.py",
        "warp/tests/a.py",
        "warp/bin/warp-clang.so",
        "x-1.dist-info/RECORD",
    ]
    kept = ["mujoco/__init__.py", "warp/bin/warp.so", "x-1.dist-info/METADATA", "x-1.dist-info/entry_points.txt"]
    for name in gone + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1234")
    freed = slim.drop(tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert freed["mujoco/viewer.py"] == 4 and freed["warp/examples"] == 0
    assert not (tmp_path / "warp" / "tests").exists()


# ---- Warp's library --------------------------------------------------------------------------------------------------


def entry(kind, sm, payload):
    return (
        struct.pack("<HHIQ", kind, 1, 64, len(payload)).ljust(28, b"\0")
        + struct.pack("<I", sm).ljust(36, b"\0")
        + payload
    )


def fat(*entries):
    body = b"".join(entries)
    return struct.pack("<IHHQ", fatbin.MAGIC, 1, 16, len(body)) + body


def elf(content, name=b".nv_fatbin"):
    """A shared object with one section besides the table of names."""
    text = b"\0" + name + b"\0.shstrtab\0"
    heads = [
        (0,) * 10,
        (1, 1, 0, 0, 64, len(content), 0, 0, 8, 0),
        (2 + len(name), 3, 0, 0, 64 + len(content), len(text), 0, 0, 1, 0),
    ]
    table = b"".join(struct.pack("<IIQQQQIIQQ", *h) for h in heads)
    at = 64 + len(content) + len(text)
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q", at) + bytes(10) + struct.pack("<HHH", 64, 3, 2)
    return bytearray(head + content + text + table)


CODE = {sm: bytes([sm]) * 8 * (1 + index) for index, sm in enumerate((80, 90, 120))}
FIRST = fat(*(entry(2, sm, code) for sm, code in CODE.items()), entry(1, 120, b"ptx.ptx."))
SECOND = fat(entry(2, 75, bytes(8)), entry(2, 90, b"another!"), entry(2, 80, bytes(8)))


def test_one_architecture_stays_and_nothing_moves():
    data = elf(FIRST + bytes(24) + SECOND + bytes(8))
    assert fatbin.architectures(data) == [80, 90]
    before = bytes(data)
    slimmed = fatbin.keep(data, 90)
    assert (slimmed.count, slimmed.kept) == (2, 2 * 64 + 16 + 8)
    assert len(data) == len(before) and data[:64] == before[:64]
    assert data[64 + len(FIRST) + 24 + len(SECOND) :] == before[64 + len(FIRST) + 24 + len(SECOND) :]
    found = list(fatbin.fat_binaries(data))
    assert [[(e.kind, e.sm) for e in f.entries] for f in found] == [[(2, 90)], [(2, 90)]]
    assert found[1].at == 64 + len(FIRST) + 24  # the linker's table still points at it
    kept = found[0].entries[0]
    assert data[kept.at : kept.at + kept.size] == entry(2, 90, CODE[90])
    end = 64 + 16 + found[0].size
    assert not any(data[end : 64 + len(FIRST)]) and found[0].size + slimmed.zeroed < len(FIRST) + len(SECOND)
    assert fatbin.architectures(data) == [90]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"MZ" + bytes(100), "no 64-bit ELF file; expected a Linux shared object"),
        (bytes(elf(FIRST))[:-70], "cut short"),
        (bytes(elf(FIRST, b".text")), "no whole section .nv_fatbin"),
        (bytes(elf(FIRST)).replace(struct.pack("<Q", len(FIRST)), struct.pack("<Q", 1 << 20)), "no whole section"),
        (bytes(elf(bytes(64))), "holds no fat binary"),
        (bytes(elf(FIRST[:40])), "fat binary at byte 64 has version 1"),
        (bytes(elf(FIRST[:4] + b"\2" + FIRST[5:])), "expected version 1"),
        (bytes(elf(fat(entry(2, 90, b"12345678")[:-1]))), "entries of a fat binary end at byte"),
        (bytes(elf(fat(entry(2, 90, b""), bytes(64)))), "entries of a fat binary end at byte"),
    ],
)
def test_a_library_that_is_laid_out_otherwise_is_refused(data, message):
    with pytest.raises(UserError, match=message):
        fatbin.architectures(data, "warp.so")


def test_an_architecture_that_is_missing_somewhere_is_refused():
    with pytest.raises(UserError, match="warp.so: sm_120 is 0 times .* once .*sm_80, sm_90"):
        fatbin.keep(elf(FIRST + SECOND), 120, "warp.so")


def test_only_binaries_of_the_architecture_travel(tmp_path):
    cache = tmp_path / "cache" / "1.19.0" / "wp_a"
    cache.mkdir(parents=True)
    for name in ("a.sm90.cubin", "a.sm80.cubin", "a.meta", "a.cu", "a.sm90.ptx"):
        (cache / name).write_text(name)
    assert kernels.keep_binaries(tmp_path / "cache", 90, tmp_path / "to") == 1
    assert sorted(p.name for p in (tmp_path / "to").rglob("*.*") if p.is_file()) == ["a.meta", "a.sm90.cubin"]
    with pytest.raises(UserError, match="no binary for sm_89"):
        kernels.keep_binaries(tmp_path / "cache", 89, tmp_path / "other")


# ---- parts -----------------------------------------------------------------------------------------------------------

LAST = "site/warp/bin/warp.so"
LIMIT = 96 * 1024


@pytest.fixture
def tree(tmp_path):
    """A bundle in small; random bytes, so that nothing shrinks."""
    made, generator = tmp_path / "tree", random.Random(0)
    for name, size in (("env", 10), ("site/a.py", 50_000), ("site/empty.py", 0), ("run", 7), (LAST, 150_000)):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(generator.randbytes(size))
    (made / "run").chmod(0o755)
    return made


@pytest.fixture
def cut(tree, tmp_path):
    """The folders of three parts."""
    made = parts.write_parts(tree, tmp_path / "out", LIMIT, LAST, fast=True)
    assert made.names == ["a", "b", "c"] and max(made.sizes) <= LIMIT
    return [tmp_path / "out" / name for name in made.names]


def join(*arguments):
    script = Path(parts.__file__).with_name("join.sh")
    return subprocess.run(["bash", str(script), *map(str, arguments)], capture_output=True, text=True)


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), bool(p.stat().st_mode & 0o100))
        for p in folder.rglob("*")
        if p.is_file() and ".parts" not in p.parts
    }


def test_what_is_small_and_read_first_comes_first(tree):
    assert parts.order(tree, LAST) == ["env", "run", "site/a.py", "site/empty.py", LAST]


def test_every_part_holds_its_piece_and_fits(cut):
    for folder in cut:
        assert sum(p.stat().st_size for p in folder.iterdir()) <= LIMIT
        assert sorted(p.name for p in folder.iterdir()) == ["bundle.tar.xz." + folder.name, "join.sh", "parts.json"]
    assert sum(p.stat().st_size for p in cut[0].iterdir()) > 0.9 * LIMIT  # full, but for the manifest's room


def test_all_parts_make_the_tree_again(cut, tree, tmp_path):
    done = join(*cut, tmp_path / "to")
    assert done.returncode == 0, done.stderr
    assert "is complete" in done.stdout
    assert contents(tmp_path / "to") == contents(tree)
    assert [p.name for p in (tmp_path / "to" / ".parts").iterdir()] == ["id"]
    again = join(cut[1], tmp_path / "to")
    assert again.returncode == 0 and "complete already" in again.stdout


def test_the_folder_around_the_parts_does_not_count_as_one(cut, tmp_path):
    done = join(tmp_path / "out", tmp_path / "to")
    assert done.returncode == 1 and "holds no parts.json" in done.stderr


def test_what_is_whole_is_there_when_the_first_part_has_come(cut, tree, tmp_path):
    to = tmp_path / "to"
    done = join(cut[0], to)
    assert done.returncode == 0, done.stderr
    assert "waits for part b and part c" in done.stdout
    assert contents(to) == {k: v for k, v in contents(tree).items() if k != LAST}
    shutil.rmtree(cut[0])  # a part that was seen is not asked for again
    done = join(cut[2], to)
    assert done.returncode == 0 and "waits for part b;" in done.stdout
    before = (to / "site" / "a.py").stat().st_ino
    done = join(cut[1], to)
    assert done.returncode == 0 and "is complete" in done.stdout, done.stdout + done.stderr
    assert contents(to) == contents(tree)
    assert (to / "site" / "a.py").stat().st_ino == before  # written once


def test_a_later_part_may_come_first(cut, tree, tmp_path):
    assert "waits for part a and part c" in join(cut[1], tmp_path / "to").stdout
    assert join(cut[0], cut[2], tmp_path / "to").returncode == 0
    assert contents(tmp_path / "to") == contents(tree)


@pytest.mark.parametrize("harm", ["cut short", "one bit", "one bit, alone"])
def test_a_damaged_part_is_named_and_a_good_copy_mends_it(cut, tree, tmp_path, harm):
    path = cut[1] / "bundle.tar.xz.b"
    good = path.read_bytes()
    path.write_bytes(good[:-1] if harm == "cut short" else good[:999] + bytes([good[999] ^ 1]) + good[1000:])
    done = join(*(cut[1:2] if harm.endswith("alone") else cut), tmp_path / "to")
    assert done.returncode == 1
    assert str(path) + " is damaged" in done.stderr and "copy it again" in done.stderr
    assert not (tmp_path / "to" / LAST).exists()
    path.write_bytes(good)
    assert join(*cut, tmp_path / "to").returncode == 0
    assert contents(tmp_path / "to") == contents(tree)


def test_a_stream_that_went_wrong_before_it_was_cut_is_found(cut, tmp_path):
    """The manifest's checksum of the largest file is of what went in."""
    for folder in cut:
        manifest = json.loads((folder / "parts.json").read_text())
        manifest["last"]["sha256"] = "0" * 64
        (folder / "parts.json").write_text(json.dumps(manifest))
    done = join(*cut, tmp_path / "to")
    assert done.returncode == 1 and "warp.so came out with another checksum" in done.stderr
    assert not (tmp_path / "to" / LAST).exists()


def test_parts_of_two_bundles_and_foreign_folders_are_refused(cut, tree, tmp_path):
    (tree / "env").write_text("another")
    parts.write_parts(tree, tmp_path / "other", LIMIT, LAST, fast=True)
    done = join(cut[0], tmp_path / "other" / "b", tmp_path / "to")
    assert done.returncode == 1 and "parts of different bundles" in done.stderr
    join(cut[0], tmp_path / "to")
    done = join(tmp_path / "other" / "b", tmp_path / "to")
    assert done.returncode == 1 and "holds another bundle" in done.stderr
    done = join(*cut, tree)
    assert done.returncode == 1 and "not empty and holds no bundle" in done.stderr
    assert join(cut[0]).returncode == 1


def test_join_says_what_python_it_needs(cut, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.6.8\nexit 1\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    environment = dict(os.environ, PATH="%s:/usr/bin:/bin" % (tmp_path / "bin"))
    command = ["bash", str(cut[0] / "join.sh"), str(cut[0]), str(tmp_path / "to")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Python 3.6.8 is older than 3.8" in done.stderr


def test_the_script_that_joins_runs_in_python_38(tmp_path):
    text = parts.JOIN.read_text().split("<<'PYTHON'\n")[1].rsplit("\nPYTHON", 1)[0]
    ast.parse(text, feature_version=(3, 8))
    (tmp_path / "join.py").write_text(text)
    vermin = shutil.which("vermin", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    assert vermin, "not installed: pip install -c constraints.txt -e '.[dev]'"
    command = [vermin, "-t=3.8-", "--violations", str(tmp_path / "join.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert max(map(len, parts.JOIN.read_text().splitlines())) <= 120


def test_the_manifest_always_fits_its_room():
    assert parts.MANIFEST_ROOM >= 26 * 130 + 400  # a row per part, and the rest
    assert parts.SMALLEST > 2 * (parts.JOIN.stat().st_size + parts.MANIFEST_ROOM)


def test_more_parts_than_letters_are_refused(tree, tmp_path):
    (tree / LAST).write_bytes(random.Random(1).randbytes(2_000_000))
    with pytest.raises(UserError, match="larger than 26 parts"):
        parts.write_parts(tree, tmp_path / "out", parts.SMALLEST, LAST, fast=True)


@pytest.mark.parametrize(
    ("text", "size"), [("60MiB", 60 << 20), ("60m", 60 << 20), ("60MB", 60000000), ("99999", 99999)]
)
def test_sizes(text, size):
    assert parts.parse_size(text) == size


# ---- the project's own files -----------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path):
    """A bundle with the project alone in it."""
    made = tmp_path / "made"
    (made / "site").mkdir(parents=True)
    (made / "kernels" / "1.19.0").mkdir(parents=True)
    (made / "kernels" / "1.19.0" / "a.sm90.cubin").write_text("code")
    project.install_project(made / "site")
    project.write_top(made, ABOUT)
    return made


def test_the_project_lies_as_a_wheel_lays_it(bundled):
    found = {
        p.relative_to(bundled / "site").as_posix() for p in (bundled / "site" / "hepo_isaac").rglob("*") if p.is_file()
    }
    for source, inside in (("hepo_isaac", ""), ("tasks", "tasks/"), ("cfg", "cfg/")):
        for path in (ROOT / source).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = "hepo_isaac/%s%s" % (inside, path.relative_to(ROOT / source).as_posix())
                assert name in found
                found.remove(name)
    assert not found
    assert "Requires-Dist: mujoco" in next((bundled / "site").glob("hepo_isaac-*.dist-info/METADATA")).read_text()
    text = "\n".join(p.read_text() for p in (bundled / "README.txt", bundled / "env"))
    assert "c0ffee with local changes" in text and "@" not in text.replace('"$@"', "")


def sourced(folder, code, **options):
    """What a shell prints after it has sourced the bundle's env."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "WARP_CACHE_PATH")
    }
    environment.update(options.pop("env", {}))
    command = ["bash", "-euc", '. "$0/env"; ' + code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


SHOW = 'echo "$PYTHONPATH"; echo "$WARP_CACHE_PATH"; echo "${PYTHONDONTWRITEBYTECODE:-}"'


def test_env_finds_its_folder_wherever_it_is_moved(bundled, tmp_path):
    moved = tmp_path / "a folder" / "moved"
    moved.parent.mkdir()
    bundled.rename(moved)
    (path, cache, unwritten), _ = sourced(moved, SHOW)
    assert (path, cache, unwritten) == (str(moved / "site"), str(moved / "kernels"), "")
    (path, *_), _ = sourced(moved, '. "$0/env"; ' + SHOW, env={"PYTHONPATH": "/mine"})
    assert path == "%s:/mine" % (moved / "site")  # once, and before the user's own


def test_what_runs_in_a_bundle_knows_its_commit_and_needs_no_checkout(bundled):
    code = (
        "import hepo_isaac, json; from hepo_isaac import locate; from hepo_isaac.runs.record import metadata; "
        "assert locate.bundled(); print(hepo_isaac.__file__); print(json.dumps(metadata.collect()['git']))"
    )
    (where, state), _ = sourced(bundled, '"%s" -c "%s"' % (sys.executable, code))
    assert where.startswith(str(bundled))
    assert json.loads(state) == {"commit": "c0ffee", "dirty": True}


def test_a_damaged_or_foreign_description_says_no_commit(tmp_path):
    for text in ("{", "[]", "{}", '"commit"'):
        (tmp_path / "bundle.json").write_text(text)
        assert git_state(tmp_path) is None


def test_env_warns_of_another_python(bundled):
    (bundled / "env").write_text((bundled / "env").read_text().replace(ABOUT["python"], "3.99"))
    _, said = sourced(bundled, ":")
    assert "this bundle is for Python 3.99, and python3 here is Python 3" in said


def test_a_read_only_bundle_gets_a_cache_of_its_own(bundled):
    """As somebody who may not write there: root may, whatever the mode says."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        copy = Path(folder) / "bundle"
        shutil.copytree(bundled, copy)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o555)
        somebody = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
        (_, cache, unwritten), _ = sourced(copy, SHOW, env={"TMPDIR": folder}, **somebody)
        assert cache.startswith(folder + "/hepo-isaac-") and cache.endswith(ABOUT["id"]) and unwritten == "1"
        assert (Path(cache) / "1.19.0" / "a.sm90.cubin").read_text() == "code"
        sourced(copy, 'touch "$WARP_CACHE_PATH/1.19.0/new"', env={"TMPDIR": folder}, **somebody)
        assert (Path(cache) / "1.19.0" / "new").exists() and len(list(Path(cache).parent.iterdir())) == 1
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch, tmp_path):
    """An environment with a small Warp."""
    path = tmp_path / "warp.so"
    path.write_bytes(elf(FIRST + SECOND))
    monkeypatch.setattr(bundle, "warp_library", lambda: path)
    return path


def refused(capsys, *arguments):
    assert cli(["bundle", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-part", "60XB"], "--max-part 60XB: expected a size such as 60MiB"),
        (["--max-part", "many"], "--max-part many: expected a size"),
        (["--max-part", "10KiB"], "--max-part 10KiB is 10240 bytes; expected at least 64 KiB"),
        (["--python", "3.8"], "--python 3.8: expected the node's Python as 3.11 or newer"),
        (["--python", "three"], "--python three: expected the node's Python"),
        (["--arch", "sm_91"], "unknown --arch 'sm_91': did you mean 'sm_90' or 'sm_80'? valid: sm_80, sm_90"),
        (["--arch", "sm_120"], "valid: sm_80, sm_90"),
        (["--tasks", "Antt"], "unknown robot task 'Antt': did you mean 'Ant'"),
    ],
)
def test_a_wrong_argument_is_told_in_a_sentence(capsys, library, tmp_path, options, message):
    assert message in refused(capsys, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_without_warp_it_says_what_to_install(capsys, monkeypatch, tmp_path):
    there = importlib.util.find_spec
    monkeypatch.setattr(bundle.importlib.util, "find_spec", lambda n: None if n == "mujoco_warp" else there(n))
    assert "needs mujoco_warp, which is not installed; pip install 'hepo-isaac[cuda]'" in refused(
        capsys, tmp_path / "out"
    )


def test_a_library_of_another_system_is_refused(capsys, library, tmp_path):
    library.write_bytes(b"MZ" + bytes(99))
    assert "warp.so is no 64-bit ELF file" in refused(capsys, tmp_path / "out")
    library.unlink()
    assert "warp.so is missing" in refused(capsys, tmp_path / "out")


def test_a_folder_that_is_no_bundle_is_left_alone(capsys, library, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert "not empty and holds no bundle" in refused(capsys, out)
    assert "is a file" in refused(capsys, out / "thesis.tex")
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_told_beforehand(capsys, library, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(1 << 40, 0, 1 << 30)
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: usage)
    assert "has 1.0 GiB free; expected 2.0 GiB" in refused(capsys, tmp_path / "new" / "out")


def made_tree(request, tree, work):
    (tree / "site").mkdir(parents=True)
    (tree / "site" / "bundle.json").write_text(json.dumps({"commit": "new"}))
    return {"bytes": {"site": 1 << 20, "kernels": 0}}


def test_an_old_bundle_is_replaced_only_by_a_new_one(library, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "parts.json").write_text("{}")
    (out / ".making-1").mkdir()  # of a command that was killed

    def fails(request, tree, work):
        raise UserError("no network")

    monkeypatch.setattr(bundle, "make_tree", fails)
    assert "no network" in refused(capsys, out)
    assert [p.name for p in out.iterdir()] == ["a"]
    assert "no network" in refused(capsys, tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    monkeypatch.setattr(bundle, "make_tree", made_tree)
    assert cli(["bundle", str(out)]) == 0
    assert [p.name for p in out.iterdir()] == ["site"] and "next: . %s/env" % out in capsys.readouterr().out


def test_progress_is_said_with_the_time_left(capsys):
    ticker = Ticker("packing", 4, interval=0.0, unit="MiB")
    ticker.at(1, "a.py")
    assert capsys.readouterr().out.startswith("  packing: 1 of 4 MiB, a.py, ETA 0:00:0")
    Ticker("packing", 4).at(1)
    assert capsys.readouterr().out == ""  # nothing that takes less than five seconds


# ---- the whole of it -------------------------------------------------------------------------------------------------

TASK = "Cartpole"
STEP = """
import json
from hepo_isaac.sim.mujoco import imitated_cuda
record = imitated_cuda.install(90)
import hepo_isaac, mujoco, warp
from hepo_isaac.runs.machine import kernels
for num_envs in kernels.NUM_ENVS:
    kernels.touch_everything(%r, num_envs, num_envs == 64)
print(json.dumps([[hepo_isaac.__file__, mujoco.__file__, warp.__file__], record.compiled, record.illegal]))
""" % (TASK)


def python_with_torch(folder):
    """Another Python that has torch, and its version: HEPO_TEST_PYTHON, one on PATH, or this one with torch alone."""
    given = [os.environ["HEPO_TEST_PYTHON"]] if "HEPO_TEST_PYTHON" in os.environ else []
    for name in given or ["python3.%d" % minor for minor in (12, 13, 11) if minor != sys.version_info[1]]:
        ask = [name, "-c", "import sys, torch, numpy; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(ask, capture_output=True, text=True, cwd="/")
        except OSError:
            continue
        if done.returncode == 0:
            return shutil.which(name), done.stdout.strip()
    assert not given, "HEPO_TEST_PYTHON=%s cannot import torch and numpy" % given[0]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    version = "%d.%d" % sys.version_info[:2]
    for name in packages.closure(["torch", "numpy"], packages.environment_of(version), missing_is_fine=True):
        there = Path(str(metadata.distribution(name).locate_file("")))
        for top in {file.parts[0] for file in metadata.files(name)} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(there / top)
    return str(folder / "bin" / "python3"), version


@pytest.mark.slow
def test_a_bundle_runs_without_the_checkout_and_compiles_nothing(tmp_path):
    python, version = python_with_torch(tmp_path / "venv")
    out, to = tmp_path / "out", tmp_path / "to"
    command = [sys.executable, "-m", "hepo_isaac.cli", "bundle", str(out), "--tasks", TASK, "--python", version]
    done = subprocess.run([*command, "--fast", "--max-part", "60MiB"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["a", "b"]
    env = {"PATH": "%s:/usr/bin:/bin" % Path(python).parent, "TMPDIR": str(tmp_path)}
    (tmp_path / "elsewhere").mkdir()

    def shell(code):
        options = {"env": env, "cwd": tmp_path / "elsewhere", "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-euc", code, "bash", str(out), str(to), python], **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "waits for part b" in shell('bash "$1/a/join.sh" "$1/a" "$2"')
    # what needs no Warp runs before the second part is there
    train = '. "$2/env"; "$3" "$2/train.py" task=%s algo=hepo sim=mujoco_batch num_envs=8 train.max_iterations=1' % TASK
    assert "finished" in shell(train)
    described = json.loads(next((tmp_path / "elsewhere").glob("runs/*/hepo/*/metadata.json")).read_text())
    assert described["git"] == git_state(ROOT)
    assert "is complete" in shell('bash "$1/b/join.sh" "$1/b" "$2"')
    last = shell('. "$2/env"; "$3" -c \'%s\'' % STEP.replace("'", '"')).strip().splitlines()[-1]
    files, compiled, illegal = json.loads(last)
    assert all(file.startswith(str(to)) for file in files)
    assert compiled == [] and illegal == []
    about = json.loads((to / "site" / "bundle.json").read_text())
    assert [pattern for pattern, freed in about["dropped_bytes"].items() if not freed] == []  # the table is not stale
    assert about["kernel_binaries"] == len(list((to / "kernels").rglob("*.sm90.cubin"))) > 20
