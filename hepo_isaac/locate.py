"""Where tasks and configuration lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import importlib
import re
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


def tasks_dir() -> Path:
    """Folder of the tasks' files, with assets/ and recordings/."""
    return (PACKAGE if bundled() else PACKAGE.parent) / "tasks"


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


def module_name(task: str) -> str:
    """Name of the file of a task: FrankaCabinet is in franka_cabinet.py."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", task).lower()


def import_task_module(task: str) -> ModuleType:
    """Import the module of a task by the task's name.

    Raises:
        UserError: there is no such task, or the package ``tasks`` that Python finds is somebody else's.
    """
    if task not in task_names():
        raise unknown("task", task, task_names())
    name = module_name(task)
    if bundled():
        return importlib.import_module("hepo_isaac.tasks." + name)
    root = str(PACKAGE.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    module = importlib.import_module("tasks." + name)
    if Path(str(module.__file__)).resolve().parent != PACKAGE.parent / "tasks":
        raise UserError(
            "task=%s: Python imports another package called tasks, %s; remove it from PYTHONPATH"
            % (task, module.__file__)
        )
    return module


def task_class(task: str) -> Any:
    """Class of a task by name: its module's ``TASK``."""
    return import_task_module(task).TASK
