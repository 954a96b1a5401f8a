"""Environments under gymnasium's names: ``gymnasium.make_vec("hepo_isaac/Ant-v0")`` after ``import hepo_isaac``.

gymnasium 1.x looks at no entry points: a package registers its environments when it is imported. Importing gymnasium
for that would make ``import hepo_isaac``, and with it every command, ten times as long; so it is done at once where
gymnasium is imported already, and else as soon as it is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from typing import Any, List

from hepo_isaac.errors import UserError

NAMESPACE = "hepo_isaac"
_REGISTRY = "gymnasium.envs"  # the package whose import makes the registry, and fills it with gymnasium's own


def env_id(task: str) -> str:
    """The name of a task's environments in gymnasium's registry."""
    return "%s/%s-v0" % (NAMESPACE, task)


def register() -> List[str]:
    """Register every task that is installed and not there yet; returns the names of the new ones."""
    from gymnasium.envs import registration

    from hepo_isaac.locate import task_names

    new: List[str] = []
    with contextlib.suppress(UserError):  # of somebody else's plug-in: whoever asks for a task is told
        for task in task_names():
            name = env_id(task)
            if name not in registration.registry and registration.ENV_ID_RE.fullmatch(name):
                registration.register(
                    id=name,
                    entry_point="hepo_isaac.api.make:make_single",
                    vector_entry_point="hepo_isaac.api.make:make",
                    kwargs={"task": task},
                )
                new.append(name)
    return new


def register_when_gymnasium_is_there() -> None:
    """Register now, or right after gymnasium is imported for the first time."""
    if _REGISTRY in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Stands first among Python's finders, finds nothing itself, and has ``register`` called after the import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the other finders give, of which ``register`` has become a part; None for every other name."""
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
