"""What was typed after ``hepo-isaac play`` or ``view``: which run or task, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from hepo_isaac.aliases import quoted, translate
from hepo_isaac.errors import UserError


class Shown(NamedTuple):
    """settings: resolved.  folder: of the run, or None.  file: its checkpoint, or None for random actions."""

    settings: Dict[str, Any]
    folder: Optional[Any]
    file: Optional[Path]


def pairs(command: str, arguments: Sequence[str], example: str) -> Dict[str, str]:
    """``key=value`` arguments.

    Raises:
        UserError: one is none.
    """
    found: Dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError("hepo-isaac %s takes key=value, got %r; e.g. %s" % (command, argument, example))
        if key in found:
            raise UserError("%s=%s and %s=%s: expected each setting once" % (key, found[key], key, value))
        found[key] = value
    return found


def whole(given: Dict[str, str], key: str, default: int, least: int, most: int) -> int:
    """A whole number, taken out of ``given``."""
    text = given.pop(key, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not least <= int(text) <= most:
        raise UserError("%s must be a whole number from %d to %d, got %r" % (key, least, most, text))
    return int(text)


def yes(given: Dict[str, str], key: str) -> bool:
    """true or false, taken out of ``given``; false by default."""
    text = given.pop(key, "false").lower()
    if text not in ("true", "false"):
        raise UserError("%s must be true or false, got %r" % (key, text))
    return text == "true"


def shown(command: str, given: Dict[str, str], num_envs: int) -> Shown:
    """The run or task of what is left of ``given``, with its own settings and those typed on top.

    Args:
        given: run, or task alone for a policy that came along, or task and run=random; and any setting.

    Raises:
        UserError: no run, an unknown setting, or one that cannot be.
    """
    from hepo_isaac.overrides import check_overrides, compose
    from hepo_isaac.plugins import named_on_command_line
    from hepo_isaac.runs.play.command import what_is_played
    from hepo_isaac.runs.record.bundled import bundled_run

    given = dict(given)
    run = given.pop("run", given.pop("checkpoint", ""))
    if not run and given.get("task"):
        run = str(bundled_run(given["task"]))
    if not run:
        raise UserError(
            "hepo-isaac %s needs run=<run folder or checkpoint>, task=<one that hepo-isaac policies lists>, or task=… "
            "run=random" % command
        )
    overrides: List[str] = named_on_command_line(translate(["%s=%s" % pair for pair in given.items()]))
    check_overrides(overrides)
    overrides = [*overrides, "num_envs=%d" % num_envs, "video=true"]  # so that an engine without films is refused
    cfg = compose([*overrides, "checkpoint=" + quoted(run)])
    return Shown(*what_is_played(cfg, overrides))
