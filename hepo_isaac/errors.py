"""What is said to a user: errors to act on, in one sentence that says what is wrong, what was expected and what to do;
and notices of what does not stop a run."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence

_STANDARD = Path(os.__file__).resolve().parent
MANY, FAMILY = 30, 5  # names of a list that is shortened, and of what in it is worth it


class UserError(Exception):
    """A mistake in the command, the configuration or a user's own function.

    The command line prints the message alone (no traceback) and exits with code 2.
    """


class CheckpointError(UserError):
    """A checkpoint that is truncated, foreign or does not fit the run that wants to load it."""


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """Restoring from ``what``, which may be of another version, another scene or anybody's: what does not fit is one
    sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, AssertionError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise CheckpointError("%s does not fit this run: %s: %s" % (what, type(error).__name__, why)) from error


class UnstablePhysicsError(UserError):
    """Too many worlds diverged in one iteration; the run has saved its state and stopped."""


class Notice(NamedTuple):
    """Something that went otherwise than asked for without stopping the run: a line, and a traceback if any."""

    text: str
    details: str = ""


def nearest(name: str, valid: Iterable[str], count: int = 3) -> Sequence[str]:
    """Return up to ``count`` of ``valid`` that look most like ``name``, best first."""
    valid = list(valid)
    lowered = {v.lower(): v for v in valid}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.4)
    return [lowered[c] for c in close]


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Build the error for an unknown ``kind`` called ``name``, with the nearest and all valid names."""
    valid = sorted(valid)
    close = nearest(name, valid)
    hint = " did you mean %s?" % " or ".join(repr(c) for c in close) if close else ""
    return UserError("unknown %s %r:%s valid: %s" % (kind, name, hint, listed(valid)))


def listed(names: Sequence[str]) -> str:
    """Names with commas between them. Of more than MANY, a family of names that begin with another one is counted."""
    sizes = {name: sum(other.startswith(name) for other in names) - 1 for name in names}
    families = [name for name in names if len(names) > MANY and sizes[name] >= FAMILY]
    told = [n for n in names if not any(n != family and n.startswith(family) for family in families)]
    return ", ".join("%s (and %d that begin so)" % (n, sizes[n]) if n in families else n for n in told)


def blamed(error: BaseException) -> str:
    """An exception of somebody's own code in a sentence: what it says, and the file, number and text of the line, the
    innermost that is neither ours nor an installed package's."""
    said = "%s: %s" % (type(error).__name__, " ".join(str(error).split()))
    if isinstance(error, SyntaxError) and error.filename:
        text = " ".join(str(error.text or "").split())
        return "SyntaxError: %s, in %s, line %s: %s" % (error.msg, error.filename, error.lineno, text)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _of_ours(f.filename)]
    own = [f for f in frames if "site-packages" not in Path(f.filename).parts] or frames
    if not own:
        return said
    return "%s, in %s, line %s: %s" % (said, own[-1].filename, own[-1].lineno, own[-1].line or "?")


def _of_ours(file: str) -> bool:
    """Whether code is of this package or of Python itself."""
    above = Path(file).parents
    ours = Path(__file__).resolve().parent in above
    return ours or file.startswith("<") or (_STANDARD in above and "site-packages" not in Path(file).parts)


def readable_streams() -> None:
    """Let a terminal without an encoding for a character show a stand-in, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding not in ("utf8", "utf16", "utf32") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def check_working_directory() -> None:
    """Refuse to start in a folder that somebody has deleted.

    Raises:
        UserError: there is no working directory.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the working directory is not there any more: cd to a folder that exists") from error


def one_line(text: str) -> str:
    """Text as one line that does nothing to a terminal: what is no printable character is shown as its number, since a
    message may quote a stranger's file."""
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in " ".join(text.split()))


def report_errors(function: Callable[[], int]) -> int:
    """Call ``function``; turn the user's mistakes into one line on stderr, and keep the traceback of ours."""
    readable_streams()
    try:
        check_working_directory()
        return function()
    except UserError as error:
        print("error: " + one_line(str(error)), file=sys.stderr)
        return 1 if isinstance(error, UnstablePhysicsError) else 2
    except KeyboardInterrupt as stop:
        return 128 + int(getattr(stop, "signal", 2))
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename is not None:
            start = one_line(str(error.filename)[:80])
            print("error: %s… is too long for a path; expected a shorter one" % start, file=sys.stderr)
            return 2
        traceback.print_exc()
        return 1
