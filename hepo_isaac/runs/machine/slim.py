"""What a bundle leaves out of the packages it carries: what no training, evaluation or check imports."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

# Requirements that nothing the project does on a GPU node imports. Films (MuJoCo's renderer wants PyOpenGL and glfw)
# and TensorBoard's own server are for the machine on which results are looked at.
UNUSED: Tuple[Tuple[str, str], ...] = (
    ("etils", "paths of mujoco_warp's own command line"),
    ("glfw", "windows"),
    ("grpcio", "TensorBoard's server; event files are written without it"),
    ("markdown", "TensorBoard's server"),
    ("mujoco-studio", "MuJoCo's graphical editor"),
    ("pillow", "pictures in event files, and TensorBoard's server"),
    ("pygame-ce", "windows of gymnasium's classic control"),
    ("pyopengl", "MuJoCo's renderer"),
    ("setuptools", "installing packages"),
    ("tensorboard-data-server", "TensorBoard's server"),
    ("werkzeug", "TensorBoard's server"),
)

# Globs below the folder of packages, and why they are left out.
DROPPED: Tuple[Tuple[str, str], ...] = (
    ("**/tests", "tests"),
    ("mujoco/*_test.py", "tests"),
    ("mujoco/testdata", "tests"),
    ("mujoco_warp/_src/*_test.py", "tests"),
    ("mujoco_warp/test_data", "tests"),
    ("mujoco_warp/conftest.py", "tests"),
    ("mujoco/doc", "documentation"),
    ("mujoco/include", "C headers"),
    ("mujoco/introspect", "tables for those who write bindings"),
    ("mujoco/sysid", "system identification"),
    ("mujoco/usd", "export to USD"),
    ("mujoco/plugin", "plugins that no scene here uses"),
    ("mujoco/viewer.py", "viewer"),
    ("mujoco/_simulate*.so", "viewer"),
    ("mujoco_warp/viewer.py", "viewer"),
    ("mujoco_warp/record.py", "films"),
    ("mujoco_warp/testspeed.py", "benchmark"),
    ("warp/examples", "examples"),
    ("warp/__init__.pyi", "types for editors"),
    ("warp/bin/warp-clang.so", "compiler of kernels for the CPU"),
    ("rl_games/configs", "settings of rl-games' own environments"),
    ("tensorboard/plugins/projector/tf_projector_plugin", "TensorBoard's server"),
    ("tensorboard/webfiles.zip", "TensorBoard's server"),
    ("pydevd_plugins", "debugger"),
    ("gymnasium/**/*.png", "pictures of gymnasium's own environments"),
    ("gymnasium/**/*.xml", "models of gymnasium's own environments"),
)
# Of a *.dist-info folder only these are read when something runs: versions, and plugins such as gymnasium's.
KEPT_OF_DIST_INFO = ("METADATA", "entry_points.txt")


def drop(site: Path) -> Dict[str, int]:
    """Delete what the tables name; returns the bytes that each pattern freed, 0 where it matched nothing."""
    freed: Dict[str, int] = {}
    for pattern, _ in DROPPED:
        freed[pattern] = 0
        for path in list(site.glob(pattern)):
            freed[pattern] += size_of(path)
            _remove(path)
    for info in site.glob("*.dist-info"):
        for path in info.rglob("*"):
            if path.is_file() and path.name not in KEPT_OF_DIST_INFO:
                path.unlink()
    for folder in sorted((p for p in site.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    return freed


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif path.exists():
        path.unlink()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def strip(site: Path) -> int:
    """Strip symbols off shared objects where binutils are there; returns the bytes saved.

    Libraries that auditwheel grafted (``*.libs``) have been patched in ways that strip can break, and warp.so has its
    own treatment (fatbin.py); both stay as they are.
    """
    program = shutil.which("strip")
    if program is None:
        return 0
    found = [p for p in site.rglob("*.so*") if p.is_file() and ".libs" not in str(p.parent) and "warp" not in p.parts]
    before = sum(p.stat().st_size for p in found)
    for start in range(0, len(found), 50):
        _strip(program, found[start : start + 50])
    return before - sum(p.stat().st_size for p in found)


def _strip(program: str, files: Sequence[Path]) -> None:
    # what strip cannot read it leaves alone and says so: the file then travels as it came
    subprocess.run([program, "--strip-unneeded", *map(str, files)], capture_output=True)


def unused_names() -> List[str]:
    """Names of UNUSED."""
    return [name for name, _ in UNUSED]
