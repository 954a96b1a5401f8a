"""Where tasks and configuration lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, List, Sequence

from hepo_isaac.errors import UserError, unknown

PACKAGE = Path(__file__).resolve().parent


def bundled() -> bool:
    """Whether tasks and cfg travel inside the package (an installed wheel) instead of beside it (a checkout)."""
    return (PACKAGE / "cfg" / "config.yaml").is_file()


def cfg_dir() -> Path:
    """Folder of config.yaml and its groups."""
    folder = (PACKAGE if bundled() else PACKAGE.parent) / "cfg"
    if not (folder / "config.yaml").is_file():
        raise UserError(
            "%s is missing; reinstall hepo-isaac or run from a complete checkout" % (folder / "config.yaml")
        )
    return folder


def robots_dir() -> Path:
    """Folder of the tasks on physics engines, with assets/ and recordings/."""
    return (PACKAGE if bundled() else PACKAGE.parent) / "tasks" / "robots"


def group_names(group: str) -> List[str]:
    """Names accepted by ``<group>=`` (task, algo, sim, budget), sorted."""
    return sorted(p.stem for p in (cfg_dir() / group).glob("*.yaml") if not p.stem.startswith("_"))


def task_names() -> List[str]:
    """Names accepted by ``task=``, sorted."""
    return group_names("task")


def robot_tasks(given: Sequence[str] = ("all",)) -> List[str]:
    """The tasks on a physics engine out of ``given``: all of them for ["all"], else the named ones.

    Raises:
        UserError: a name is no such task.
    """
    from omegaconf import OmegaConf

    files = {name: OmegaConf.load(cfg_dir() / "task" / (name + ".yaml")) for name in task_names()}
    robots = [name for name, cfg in files.items() if OmegaConf.select(cfg, "task.physics") is not None]
    for name in given:
        if name != "all" and name not in robots:
            raise unknown("robot task", name, robots)
    return robots if list(given) == ["all"] else list(given)


def tasks_package() -> ModuleType:
    """The package of the tasks.

    Raises:
        UserError: the package ``tasks`` that Python finds is somebody else's.
    """
    if bundled():
        return importlib.import_module("hepo_isaac.tasks")
    root = str(PACKAGE.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    package = importlib.import_module("tasks")
    if Path(str(package.__file__)).resolve().parent != PACKAGE.parent / "tasks":
        raise UserError("Python imports another package called tasks, %s; remove it from PYTHONPATH" % package.__file__)
    return package


def tasks_module(name: str) -> ModuleType:
    """A module of the tasks' package, as ``robots.in_hand``."""
    return importlib.import_module("%s.%s" % (tasks_package().__name__, name))


def task_class(task: str) -> Any:
    """Class of a task by name: the ``TASK`` of its module.

    Raises:
        UserError: there is no such task.
    """
    package = tasks_package()
    if task not in package.MODULES:
        raise unknown("task", task, task_names())
    return tasks_module(package.MODULES[task]).TASK
