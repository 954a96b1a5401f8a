"""Every setting of a method and of ``train``: its default and its meaning, read from the dataclasses that hold them.

Hydra composes the ``algo`` and ``train`` of every run on top of ``defaults()``, so that a key exists for every method
and a yaml says only what departs. docs/settings.md is generated from here.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Dict, List, Tuple

from hepo_isaac.agents.config import NETWORK, TrainConfig
from hepo_isaac.errors import UserError
from hepo_isaac.locate import plugin_tasks
from hepo_isaac.methods.method import MethodConfig

NODE = "schema"  # the name under which config.yaml lists it first


def defaults() -> Dict[str, Any]:
    """{"algo": …, "train": …}: every key at its default, nested as in the yamls."""
    train = _of_class(TrainConfig)
    train["network"] = {key: train.pop(key) for key in NETWORK}
    return {"algo": _of_class(MethodConfig), "train": train}


def register() -> None:
    """Tell Hydra of the schema and of the settings of others' tasks; to be called before anything is composed.

    A task whose settings cannot be read stays out: whoever asks for it is told why (hepo_isaac/overrides.py).
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name=NODE, node=defaults(), provider="hepo_isaac")
    for name, plugin in plugin_tasks().items():
        try:
            settings = plugin.settings()
        except UserError:
            continue
        store.store(name=name, group="task", node=settings, package="_global_", provider=plugin.origin)


def meanings() -> List[Tuple[str, Any, str]]:
    """(dotted key, default, meaning) of every setting of a method and of ``train``, in order of the dataclasses."""
    found = []
    for root, cls in (("algo", MethodConfig), ("train", TrainConfig)):
        found += _meanings(root, cls)
    return found


def _meanings(prefix: str, cls: Any) -> List[Tuple[str, Any, str]]:
    texts, found = documented(cls), []
    for field in fields(cls):
        inner = field.default_factory() if field.default_factory is not MISSING else None
        if is_dataclass(inner):
            found += _meanings("%s.%s" % (prefix, field.name), type(inner))
            continue
        place = prefix + ".network" if cls is TrainConfig and field.name in NETWORK else prefix
        found.append(("%s.%s" % (place, field.name), _plain(field.default), texts[field.name]))
    return found


def documented(cls: Any) -> Dict[str, str]:
    """Field -> its paragraph in the docstring of ``cls``, on one line: ``key:`` or ``key, key:`` begins one."""
    names = {f.name for f in fields(cls)}
    found: Dict[str, str] = {}
    current: Tuple[str, ...] = ()
    for line in (cls.__doc__ or "").splitlines():
        start = re.match(r"    ([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", line)
        keys = tuple(start.group(1).split(", ")) if start else ()
        if start and set(keys) <= names:
            current = keys
            found.update(dict.fromkeys(keys, start.group(2).strip()))
        elif line.startswith("        ") and current:
            found.update({key: "%s %s" % (found[key], line.strip()) for key in current})
        else:
            current = ()
    return found


def _of_class(cls: Any) -> Dict[str, Any]:
    """Field -> default of a dataclass as plain values; one without a default is null."""
    out: Dict[str, Any] = {}
    for field in fields(cls):
        if field.default_factory is not MISSING:
            out[field.name] = _of_class(type(field.default_factory()))
        else:
            out[field.name] = _plain(field.default)
    return out


def _plain(value: Any) -> Any:
    if value is MISSING:
        return None
    return list(value) if isinstance(value, tuple) else value
