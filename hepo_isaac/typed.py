"""The command line of train as it was typed: in the names of this project, or answered."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

from hepo_isaac.aliases import ALIASES, ForeignNamesError, split_options, together, translate, unquoted
from hepo_isaac.errors import UserError
from hepo_isaac.overrides import unknown_keys
from hepo_isaac.plugins import named_on_command_line


def check_repeated(argv: Sequence[str]) -> int:
    """Refuse a setting that is given twice with different values; returns 0.

    Raises:
        UserError: both, as they were typed.
    """
    typed: Dict[str, str] = {}
    for argument in split_options(argv)[1]:
        name, equals, value = argument.lstrip("+").partition("=")
        ours = ALIASES.get(name, name)
        before = typed.setdefault(ours, argument) if equals else argument
        if before.partition("=")[2] != value and equals and ours != "device":
            raise UserError("%s and %s set %s twice: leave one of them" % (before, argument, ours))
    return 0


def read(argv: Sequence[str]) -> List[str]:
    """What was typed, in the names of this project; every name that is none of them is answered at once.

    Raises:
        UserError: with the right name of each, or why it is not needed.
    """
    try:
        return named_on_command_line(translate(argv))
    except ForeignNamesError as found:
        rest = split_options(found.rest)[1]
        raise UserError(together([*found.answers, *unknown_keys(named_on_command_line(rest))])) from found


def refuse_a_lone_checkpoint(given: Mapping[str, str]) -> None:
    """Isaac Gym Envs goes on with a checkpoint that is named; here that is resume=."""
    file = given.get("checkpoint", "null")
    if given.get("test", "").lower() == "true" and file in ("null", "", "''"):
        raise UserError("test=true needs checkpoint=<file or run folder>, or checkpoint=random for random actions")
    if file not in ("null", "", "''") and given.get("test", "").lower() != "true":
        raise UserError(
            "checkpoint=%s without test=true does nothing: test=true evaluates it, resume=<its run folder> trains on"
            % unquoted(file)
        )
