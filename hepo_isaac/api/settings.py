"""Keyword arguments as settings of the command line, resolved and judged as it does."""

from __future__ import annotations

import contextlib
import math
import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Optional

from omegaconf import DictConfig

from hepo_isaac.aliases import quoted, translate
from hepo_isaac.config import GROUPS, check_machine, cuda_available, plain, resolve, validate
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.plugins import named_on_command_line
from hepo_isaac.runs.record.stored import MAX_ENVS

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def dotted(settings: Optional[Mapping[str, Any]], overrides: Mapping[str, Any]) -> Dict[str, Any]:
    """Both ways of giving a setting as one: ``{"task.physics.substeps": 4}`` and ``task__physics__substeps=4``.

    Raises:
        UserError: something that is no name of a setting, or one that is given twice.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(
            "settings is a %s; expected a dict of settings, e.g. {'task.physics.substeps': 4}" % type(settings).__name__
        )
    found: Dict[str, Any] = {}
    for given, value in [*(settings or {}).items(), *((k.replace("__", "."), v) for k, v in overrides.items())]:
        key = str(given)
        if not _KEY.fullmatch(key) or key.split(".")[0] == "hydra":
            raise UserError(
                "%r is no name of a setting; expected one as on the command line, e.g. task.physics.substeps" % given
            )
        if key in found:
            raise UserError("%s is given twice, in settings and as a keyword; take one of them out" % key)
        found[key] = value
    return found


def as_overrides(settings: Mapping[str, Any]) -> List[str]:
    """``key=value`` as the command line takes them, Isaac Gym Envs' names translated and tasks from files known.

    Raises:
        UserError: a value that no setting can have.
    """
    texts = []
    for key, value in settings.items():
        if key == "task" and isinstance(value, str):
            texts += named_on_command_line(["task=" + value])
        else:
            texts.append("%s=%s" % (key, _text(key, value)))
    return translate([_safe_choice(text) for text in texts])


def _safe_choice(text: str) -> str:
    """A choice of a group to the letter: what is no plain word would mean something to Hydra."""
    key, _, value = text.partition("=")
    return "%s=%s" % (key, quoted(value)) if key in GROUPS and not _WORD.fullmatch(value) else text


def _text(key: str, value: Any) -> str:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # a number of NumPy's or torch's
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        return str(text) if key in GROUPS else quoted(str(text))
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(_text("", v) for v in value)
    if isinstance(value, Mapping):
        return "{%s}" % ",".join("%s:%s" % (k, _text("", v)) for k, v in value.items())
    raise UserError(
        "%s is a %s; expected a number, a word, true or false, or a list of them" % (key, type(value).__name__)
    )


def composed(overrides: List[str]) -> DictConfig:
    """The configuration for checked ``overrides``; Hydra's state of a program that uses Hydra itself stays its own.

    Raises:
        UserError: an unknown setting or choice, or a value of the wrong type.
    """
    with _hydra_untouched():
        check_overrides(overrides)
        return compose(overrides)


@contextlib.contextmanager
def _hydra_untouched() -> Iterator[None]:
    from hydra.core.global_hydra import GlobalHydra

    held = GlobalHydra.instance().hydra
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = held


def environment_config(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """The resolved configuration of environments alone, of which no method is asked.

    Raises:
        UserError: what the command line would refuse, in its words.
    """
    overrides = as_overrides(settings)
    cfg = composed(overrides)
    check_num_envs(cfg.num_envs)
    cuda = cuda_available()
    settled = resolve(cfg, overrides, cuda)
    check_machine(settled, cuda)
    validate(settled, training=False)
    return plain(settled)


def check_num_envs(value: Any) -> None:
    """Refuse a number of environments that no machine holds, before anything is built."""
    if isinstance(value, int) and not 1 <= value <= MAX_ENVS:
        raise UserError("num_envs is %d; expected a whole number from 1 to %d" % (value, MAX_ENVS))
