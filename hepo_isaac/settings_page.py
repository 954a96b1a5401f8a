"""The tables of docs/settings.md, made from the code: ``python -m hepo_isaac.settings_page`` writes them anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

from hepo_isaac.aliases import ALIASES, ANSWERS, GRANTED
from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.locate import PACKAGE, bundled
from hepo_isaac.schema import meanings
from hepo_isaac.settings import ROLES

MARK = "<!-- %s: made by python -m hepo_isaac.settings_page -->"
END = "<!-- end -->"


def tables() -> Dict[str, List[str]]:
    """Name of a section -> the lines of its table."""
    found = {"algo": _meanings_of("algo"), "train": _meanings_of("train"), "roles": _roles(), "habits": _habits()}
    return {
        name: ["| %s |" % " | ".join(_escaped(cell) for cell in row) for row in rows] for name, rows in found.items()
    }


def _meanings_of(group: str) -> List[Sequence[str]]:
    """Rows of setting, default and meaning of ``algo`` or ``train``."""
    rows = [(key, value, text) for key, value, text in meanings() if key.startswith(group + ".")]
    return [*_head("setting", "default", "meaning"), *(("`%s`" % k, "`%s`" % _said(v), t) for k, v, t in rows)]


def _roles() -> List[Sequence[str]]:
    yes = {True: "yes", False: ""}
    rows = [("`%s`" % key, yes[role.identity], yes[role.at_resume]) for key, role in ROLES.items()]
    return [*_head("setting", "makes another run", "may change at a resume"), *rows]


def _habits() -> List[Sequence[str]]:
    rows = [("`%s=…`" % theirs, "`%s=…`" % ours) for theirs, ours in ALIASES.items()]
    rows += [("`%s=%s`" % (theirs, values[0].title()), "accepted, nothing to do") for theirs, values in GRANTED.items()]
    rows += [("`%s=…`" % theirs, "refused: %s" % text) for theirs, text in ANSWERS.items()]
    return [*_head("there", "here"), *rows]


def _head(*titles: str) -> List[Sequence[str]]:
    return [titles, ["---"] * len(titles)]


def _escaped(cell: str) -> str:
    """A cell in which <run folder> is not taken for HTML; what is in backticks stays."""
    return cell if cell.startswith("`") else cell.replace("<", "\\<").replace("|", "\\|")


def _said(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, list):
        return "[%s]" % ",".join(map(str, value))
    if value is None or isinstance(value, bool):
        return str(value).replace("None", "null").lower()
    return str(value)


def updated(text: str) -> str:
    """``text`` with every table between its marks made anew.

    Raises:
        UserError: the marks of a table are missing.
    """
    for name, lines in tables().items():
        mark = MARK % name
        if mark not in text or END not in text.split(mark, 1)[1]:
            raise UserError("docs/settings.md lacks the lines %r and %r around a table: put them back" % (mark, END))
        before, rest = text.split(mark, 1)
        text = before + "\n".join([mark, "", *lines, "", END]) + rest.split(END, 1)[1]
    return text


def page() -> Path:
    """docs/settings.md of this checkout.

    Raises:
        UserError: this is an installed package.
    """
    if bundled():
        raise UserError("docs/settings.md is a file of a checkout, and this is an installed package")
    return PACKAGE.parent / "docs" / "settings.md"


def main() -> int:
    """Write the page; returns the exit code."""
    page().write_text(updated(page().read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(report_errors(main))
