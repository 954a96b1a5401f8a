"""Command lines of hepo-isaac's commands: options of argparse and ``key=value``, with errors of one sentence."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from hepo_isaac.errors import UserError, nearest
from hepo_isaac.helps import examples_text


class Parser(argparse.ArgumentParser):
    """argparse with errors as the other commands have them: one sentence, no usage before it; examples in its help."""

    def __init__(self, command: str, description: str, **more: Any) -> None:
        super().__init__(
            prog="hepo-isaac " + command,
            description=description,
            epilog=examples_text(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError("%s: %s; %s --help lists the options" % (self.prog, message, self.prog))


def whole(least: int, most: int) -> Callable[[str], int]:
    """argparse's type of a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                "expected a whole number from %d to %d, got %r" % (least, most, text)
            ) from error
        if not least <= value <= most:
            raise argparse.ArgumentTypeError("expected a whole number from %d to %d, got %s" % (least, most, text))
        return value

    return read


def seconds(least: float, most: float = 1e7) -> Callable[[str], float]:
    """argparse's type of a number of seconds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError("expected seconds from %g to %g, got %r" % (least, most, text))
        return value

    return read


def check_file(name: str, file: Optional[Path]) -> None:
    """Refuse a file that cannot be written, before minutes of work for it.

    Raises:
        UserError: it is a folder, or its folder is not there.
    """
    if file is None:
        return
    if file.is_dir():
        raise UserError("%s %s is a folder; expected a file" % (name, file))
    if not file.absolute().parent.is_dir():
        raise UserError("%s %s: there is no folder %s" % (name, file, file.absolute().parent))


def check_folder(name: str, folder: Optional[Path]) -> None:
    """Refuse a folder that cannot be made because something else has its name.

    Raises:
        UserError: what is in the way.
    """
    if folder is None:
        return
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.exists():
            if not part.is_dir():
                raise UserError("%s %s: %s is no folder" % (name, folder, part))
            return


def pairs(command: str, arguments: Sequence[str], known: Sequence[str] = ()) -> Dict[str, str]:
    """``key=value`` arguments of a command.

    Args:
        known: its keys; empty: any.

    Raises:
        UserError: an argument of another form, unknown keys (all of them), or one given twice.
    """
    found: Dict[str, str] = {}
    wrong = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(
                "hepo-isaac %s takes key=value, got %r; hepo-isaac %s --help shows how" % (command, argument, command)
            )
        if key in found:
            raise UserError("%s=%s and %s: %s= is given twice, leave one of them" % (key, found[key], argument, key))
        if known and key not in known:
            close = nearest(key, known, 1)
            wrong.append("%r%s" % (key, " (did you mean %r?)" % close[0] if close else ""))
        found[key] = value
    if wrong:
        raise UserError("hepo-isaac %s has no %s; its keys: %s" % (command, ", ".join(wrong), ", ".join(known)))
    return found
