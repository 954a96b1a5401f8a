"""What is said to a user: errors to act on, in one sentence that says what is wrong, what was expected and what to do;
and notices of what does not stop a run."""

from __future__ import annotations

import contextlib
import difflib
import sys
import traceback
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence


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
    return UserError("unknown %s %r:%s valid: %s" % (kind, name, hint, ", ".join(valid)))


def report_errors(function: Callable[[], int]) -> int:
    """Call ``function``; turn the user's mistakes into one line on stderr, and keep the traceback of ours."""
    try:
        return function()
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 1 if isinstance(error, UnstablePhysicsError) else 2
    except KeyboardInterrupt as stop:
        return 128 + int(getattr(stop, "signal", 2))
    except Exception:
        traceback.print_exc()
        return 1
