"""Where tasks and configuration lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Sequence

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.plugins import Plugin, plugins

PACKAGE = Path(__file__).resolve().parent
PREFIX = "ShadowHand"  # of published names that may be left out


def bundled() -> bool:
    """Whether tasks and cfg travel inside the package (an installed wheel) instead of beside it (a checkout)."""
    return (PACKAGE / "cfg" / "config.yaml").is_file()


def train_command() -> str:
    """How training is called here: an installed wheel has no train.py."""
    return "hepo-isaac train" if bundled() or not (PACKAGE.parent / "train.py").is_file() else "python train.py"


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
    """Names accepted by ``<group>=`` (task, algo, sim, budget), sorted; tasks of others are among them."""
    names = [p.stem for p in (cfg_dir() / group).glob("*.yaml") if not p.stem.startswith("_")]
    return sorted([*names, *plugin_tasks()] if group == "task" else names)


def task_names() -> List[str]:
    """Names accepted by ``task=``, sorted."""
    return group_names("task")


def full_name(task: str) -> str:
    """The name of a task that is also known without the ShadowHand in front of it, as Over; any other name as it is."""
    modules = tasks_package().MODULES
    return PREFIX + task if task and task not in modules and PREFIX + task in modules else task


def plugin_tasks() -> Dict[str, Plugin]:
    """Tasks of others by name (hepo_isaac/plugins.py).

    Raises:
        UserError: one has the name of a task that is here.
    """
    found = plugins()
    for name, plugin in found.items():
        if name in tasks_package().MODULES:
            raise UserError("%s brings a task called %s, which hepo_isaac has; rename it" % (plugin.origin, name))
    return found


def task_settings(task: str) -> Dict[str, Any]:
    """What a task's own yaml says, groups ``task`` and ``train``; defaults and interpolations are not in it.

    Raises:
        UserError: there is no such task, or its yaml will not do.
    """
    from omegaconf import OmegaConf

    if task in plugin_tasks():
        return plugin_tasks()[task].settings()
    task = full_name(task)
    if task not in tasks_package().MODULES:
        raise unknown("task", task, task_names())
    found: Any = OmegaConf.to_container(_task_file(task), resolve=False)
    return {str(key): value for key, value in found.items()}


def _task_file(name: str) -> Any:
    """A yaml of cfg/task on top of those of the same folder that its defaults name, as tasks share them."""
    return _merged(cfg_dir() / "task", name)


def _merged(folder: Path, name: str) -> Any:
    from omegaconf import OmegaConf

    mine: Any = OmegaConf.load(folder / (name + ".yaml"))
    entries = [entry for entry in mine.pop("defaults") if isinstance(entry, str) and entry != "_self_"]
    return OmegaConf.merge(*(_shared(folder, entry) for entry in entries), mine)


# Many tasks name the same one; who merges it leaves it as it is.
_shared = functools.lru_cache(maxsize=None)(_merged)


def robot_tasks(given: Sequence[str] = ("all",), engine: str = "") -> List[str]:
    """The tasks on a physics engine out of ``given``: all that are here for ["all"], the dexterous ones for
    ["bidex"], else the named ones.

    Args:
        engine: only those that run on it; "" for any.

    Raises:
        UserError: a name is no such task.
    """
    settings = dict(_own_tasks())
    given = [full_name(name) for name in given]
    others = plugin_tasks()
    settings.update({name: others[name].settings()["task"] for name in given if name in others})
    robots = sorted(
        n for n, task in settings.items() if task.get("physics") and (not engine or engine in task["engines"])
    )
    if list(given) == ["all"]:
        return robots
    if list(given) == ["bidex"]:
        return [name for name in robots if name[len(PREFIX) :] in tasks_package().DEXTEROUS]
    for name in given:
        if name not in robots:
            raise unknown("robot task", name, robots)
    return list(given)


@functools.lru_cache(maxsize=None)
def _own_tasks() -> Dict[str, Dict[str, Any]]:
    """Group ``task`` of every task's yaml in cfg/, read once: it takes ten milliseconds a file."""
    return {name: task_settings(name)["task"] for name in tasks_package().MODULES}


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
    """Class of a task by name: the ``TASK`` of its module, or one of its ``TASKS``.

    Raises:
        UserError: there is no such task.
    """
    modules, task = tasks_package().MODULES, full_name(task)
    if task in modules:
        module, _, name = modules[task].partition(":")
        found = tasks_module(module)
        return found.TASKS[name] if name else found.TASK
    others = plugin_tasks()
    if task not in others:
        raise unknown("task", task, task_names())
    return others[task].load()
