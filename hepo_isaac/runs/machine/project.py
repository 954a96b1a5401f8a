"""The project's own files in a bundle, laid out as an installed wheel lays them out, and what says their version."""

from __future__ import annotations

import shutil
import stat
from importlib import metadata
from pathlib import Path
from typing import Any, Dict

from hepo_isaac.errors import UserError
from hepo_isaac.locate import PACKAGE, bundled, cfg_dir
from hepo_isaac.runs.machine.packages import PROJECT
from hepo_isaac.runs.machine.slim import KEPT_OF_DIST_INFO
from hepo_isaac.runs.record.files import write_json

SITE, KERNELS, ENV, README, DESCRIPTION = "site", "kernels", "env", "README.txt", "bundle.json"
TEMPLATES = Path(__file__).resolve().parent
_TRAIN = '''"""Train or evaluate: ``python3 train.py task=FrankaCabinet algo=hepo`` and any other setting."""

import sys

from hepo_isaac.runs.launch import typed

if __name__ == "__main__":
    sys.exit(typed(sys.argv[1:]))
'''
_README = """hepo_isaac {version} for GPU nodes without a network.
Commit {commit}{dirty}, made {date}. Python {python}, Linux x86-64, {arch}.
The node needs Python {python} with: {host_has}.
Kernels are compiled for: {tasks}. Other tasks run too and compile theirs when they start.

    cp -r THIS_FOLDER "$TMPDIR/hepo"            # optional: a node's own disk reads faster than a shared one
    . "$TMPDIR/hepo/env"                        # in bash or zsh; finds its own folder
    python3 "$HEPO_BUNDLE/train.py" task={task} algo=hepo

python3 -m hepo_isaac.cli is the command hepo-isaac: eval, compare, tasks, doctor, gpu-check.
Runs are written to ./runs. Films need PyOpenGL, which is not here: make them where you look at the results.
site/bundle.json says what is inside. Site packages are cut down to what training imports.
"""


def install_project(site: Path) -> None:
    """Copy hepo_isaac with tasks and cfg inside it, and its metadata, into ``site``.

    Raises:
        UserError: the package is not installed, so that nobody knows what it requires.
    """
    try:
        dist = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        raise UserError(
            "%s runs here without being installed, so its requirements are unknown; pip install -e '.[cuda]'" % PROJECT
        ) from None
    package = site / PACKAGE.name
    _copy(PACKAGE, package)
    if not bundled():
        _copy(PACKAGE.parent / "tasks", package / "tasks")
        _copy(cfg_dir(), package / "cfg")
    info = site / ("%s-%s.dist-info" % (PACKAGE.name, dist.version))
    info.mkdir()
    for name in KEPT_OF_DIST_INFO:
        text = dist.read_text(name)
        if text:
            (info / name).write_text(text, encoding="utf-8")


def _copy(source: Path, to: Path) -> None:
    shutil.copytree(str(source), str(to), ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))


def write_top(tree: Path, about: Dict[str, Any]) -> None:
    """The files a user meets: train.py, env, README.txt, and bundle.json beside the package."""
    facts = dict(about, dirty=" with local changes" if about["dirty"] else "", commit=about["commit"] or "unknown")
    facts.update(tasks=", ".join(about["tasks"]), host_has=", ".join(about["host_has"]), task=about["tasks"][0])
    (tree / README).write_text(_README.format(**facts), encoding="utf-8")
    (tree / "train.py").write_text(_TRAIN, encoding="utf-8")
    environment = (TEMPLATES / "env.sh").read_text(encoding="utf-8")
    for name in ("python", "id"):
        environment = environment.replace("@%s@" % name.upper(), about[name])
    (tree / ENV).write_text(environment, encoding="utf-8")
    write_json(tree / SITE / DESCRIPTION, about)
    for path in tree.rglob("*"):  # readable by whoever else uses the cluster, whatever this account's umask is
        mode = path.stat().st_mode
        path.chmod(mode | (0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644))
