"""Files that are either the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, Mapping

FILMS = "videos"  # folder, in a run's, of the films made while it trains


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a crash at any moment leaves the old file or the new one, whole.

    The data goes to a temporary file in the same folder (a rename is atomic only within one file system), is forced
    to disk, and is then renamed over the target.

    Raises:
        OSError: the disk is full or not writable; the old file is untouched and the temporary one is removed.
    """
    tmp = path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))
    try:
        with open(tmp, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            tmp.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the rename itself to disk, where the platform can (a folder cannot be opened on some)."""
    try:
        handle = os.open(str(folder), os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what write_atomic left behind in ``folder`` when its process was killed."""
    for tmp in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            tmp.unlink()


def plain_json(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as None (they are not JSON) and tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(plain_json(value), indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def number(value: Any, default: float = math.nan) -> float:
    """What was read as a number, as a float; ``default`` for anything else, and for what no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    try:
        return float(value)
    except OverflowError:
        return default


def read_json(path: Path) -> Any:
    """Read JSON, or None where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last where a stranger nested it too deeply
        return None
