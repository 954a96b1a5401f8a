"""Tasks of a user's own: brought by an installed package, or by a file or folder named on the command line.

A package names its task classes in the entry point group ``hepo_isaac.tasks``; ``task=path/to/x.py:Reach`` needs no
package. Either way the settings are in Reach.yaml beside the module. docs/own_task.md shows both.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from hepo_isaac.errors import UserError, blamed
from hepo_isaac.limits import NAME

GROUP = "hepo_isaac.tasks"


@dataclass(frozen=True)
class Plugin:
    """A task of somebody else's.

    name: as in ``task=<name>``.  module, attribute: where its class is.
    source: ``/path/to/x.py:Reach`` for one from a file, or None for one of an installed package.
    """

    name: str
    module: str
    attribute: str
    source: Optional[str] = None

    @property
    def origin(self) -> str:
        """What it came from, for messages."""
        return self.source or "%s:%s" % (self.module, self.attribute)

    def file(self) -> Path:
        """The file of its module; parent packages are imported, the module is not.

        Raises:
            UserError: there is no such module.
        """
        if self.source is not None:
            return Path(self.source.rpartition(":")[0])
        try:
            spec = importlib.util.find_spec(self.module)
        except Exception as error:  # a parent package of somebody else's may fail in any way
            raise UserError("task=%s: %s cannot be imported: %s" % (self.name, self.module, error)) from error
        if spec is None or spec.origin is None:
            raise UserError(
                "task=%s: there is no module %s; expected what the entry point in group %s names"
                % (self.name, self.module, GROUP)
            )
        return Path(spec.origin)

    def settings_file(self) -> Path:
        """Its yaml, whether there is one or not."""
        return self.file().with_name(self.name + ".yaml")

    def settings(self) -> Dict[str, Any]:
        """What its yaml holds, interpolations as they are.

        Raises:
            UserError: there is no yaml, it cannot be read, or it is of another task.
        """
        from omegaconf import OmegaConf

        path = self.settings_file()
        if not path.is_file():
            raise UserError(
                "task=%s has no settings: expected %s beside %s (a package has to include it as package data)"
                % (self.name, path.name, self.file())
            )
        try:
            found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        except Exception as error:
            raise UserError("%s cannot be read: %s" % (path, " ".join(str(error).split()))) from error
        task = found.get("task") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(task, dict) or task.get("name") != self.name:
            raise UserError("%s must hold task: {name: %s, …}, as cfg/task/Cartpole.yaml does" % (path, self.name))
        if self.source is not None:
            task["source"] = self.source
        return {str(key): value for key, value in found.items()}

    def load(self) -> Any:
        """Its class.

        Raises:
            UserError: it cannot be imported, is no task or has another name.
        """
        try:
            module = self._module()
            found = getattr(module, self.attribute)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError("task=%s: %s cannot be imported: %s" % (self.name, self.origin, blamed(error))) from error
        if not isinstance(found, type) or not hasattr(found, "scene") or not hasattr(found, "heuristics"):
            raise UserError(
                "task=%s: %s is no task; expected a subclass of hepo_isaac.envs.task.Task" % (self.name, self.origin)
            )
        if getattr(found, "name", None) != self.name:
            raise UserError(
                "task=%s: %s has name = %r; expected %r, under which it is asked for"
                % (self.name, self.origin, getattr(found, "name", None), self.name)
            )
        return found

    def _module(self) -> Any:
        if self.source is None:
            return importlib.import_module(self.module)
        file = self.file()
        if not file.is_file():
            raise UserError("task=%s came from %s, which is not there; put it back" % (self.name, file))
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))  # so that it may import its neighbours
        module = sys.modules.get(self.module) or _import_file(self.module, file)
        if Path(str(getattr(module, "__file__", ""))).resolve() != file:
            raise UserError(
                "task=%s: Python has another module called %s, %s; rename %s"
                % (self.name, self.module, getattr(module, "__file__", "built in"), file.name)
            )
        return module


def _import_file(name: str, file: Path) -> Any:
    """Import exactly this file, whatever else of that name is on the path."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


_named: Dict[str, Plugin] = {}  # those from files, of this process


def plugins() -> Dict[str, Plugin]:
    """Every task that is not the project's own, by name; nothing of them is imported.

    Raises:
        UserError: two installed packages bring a task of one name.
    """
    return {**_installed(), **_named}


def _installed() -> Dict[str, Plugin]:
    found: Dict[str, Plugin] = {}
    for entry in _entry_points():
        module, _, attribute = entry.value.partition(":")
        plugin = Plugin(entry.name, module.strip(), attribute.strip() or "TASK")
        if not NAME.fullmatch(plugin.name):
            raise UserError(
                "%s brings a task called %r, which becomes the name of a folder: rename it to letters and digits"
                % (plugin.origin, plugin.name)
            )
        other = found.setdefault(entry.name, plugin)
        if other != plugin:
            raise UserError(
                "two installed packages bring a task called %s: %s and %s; uninstall one of them"
                % (entry.name, other.origin, plugin.origin)
            )
    return found


@functools.lru_cache(maxsize=None)
def _entry_points() -> Sequence[Any]:
    found: Any = metadata.entry_points()
    if hasattr(found, "select"):  # Python 3.10 and newer
        return list(found.select(group=GROUP))
    return list(found.get(GROUP, ()))


# ---- tasks from files ---------------------------------------------------------------------------------------------


def is_path(text: str) -> bool:
    """Whether ``task=<text>`` names a file or folder and not a task."""
    return "/" in text or "\\" in text or text.partition(":")[0].endswith(".py") or text in (".", "..")


def add(source: str) -> str:
    """Make the task of ``path/to/x.py:Reach``, ``path/to/x.py`` or ``path/to/folder`` known; returns its name.

    Without a class the file's or folder's one task is meant: the class whose yaml lies beside it.

    Raises:
        UserError: there is no such file or class, or several could be meant.
    """
    path, _, attribute = source.rpartition(":") if source.rpartition(":")[0].endswith(".py") else (source, "", "")
    place = Path(path).expanduser().resolve()
    if not place.exists():
        raise UserError("task=%s: there is no %s; expected path/to/x.py:Class or a folder with one" % (source, place))
    files = sorted(place.glob("*.py")) if place.is_dir() else [place]
    found = [(file, name) for file in files for name in _classes(file) if not attribute or name == attribute]
    if not attribute:
        found = [(file, name) for file, name in found if file.with_name(name + ".yaml").is_file()]
    if len(found) != 1:
        names = ", ".join("%s:%s" % pair for pair in found)
        wanted = "a class %s" % attribute if attribute else "one class whose settings <Class>.yaml lie beside it"
        raise UserError("task=%s: expected %s in %s, found %s" % (source, wanted, place, names or "none"))
    file, name = found[0]
    know(name, "%s:%s" % (file, name))
    return name


def know(name: str, source: str) -> None:
    """Make a task of a run known again, from where it came: ``source`` is ``/path/to/x.py:Reach``."""
    file, _, attribute = source.rpartition(":")
    _named[name] = Plugin(name, Path(file).stem, attribute, source)


def _classes(file: Path) -> List[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise UserError("task=%s cannot be read: %s" % (file, blamed(error))) from error
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def named_on_command_line(arguments: Sequence[str]) -> List[str]:
    """The arguments with ``task=path/to/x.py:Reach`` as ``task=Reach``, after ``add``; several with commas, too."""
    out = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "task" and equals:
            parts = [part.strip("'\"") for part in value.split(",")]
            if any(is_path(part) for part in parts):
                argument = "task=" + ",".join(add(part) if is_path(part) else part for part in parts)
        out.append(argument)
    return out
