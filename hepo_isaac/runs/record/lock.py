"""Who writes a folder: a lock of the kernel's, and a sign of life for whoever cannot ask the kernel.

The kernel drops a lock with the process that holds it, however that ends and whatever container it ran in. Beside it,
the holder touches its lock file every few seconds: a reader on another host, or one on a file system without locks,
judges by the age of that file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Dict, Optional

from hepo_isaac.runs.record.files import read_json

NAME = ".lock"
BEAT_S = 10.0  # between two signs of life
SILENT_S = 60.0  # without one, whoever wrote is gone
# What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP)}


class HeldError(Exception):
    """Somebody else holds the lock; the message says who, as the end of a sentence."""


class FileLock:
    """A lock on one file, held from ``acquire`` to ``release`` or to the end of the process.

    Args:
        path: the file, made where there is none; it stays when the lock is released.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: Optional[int] = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock, or keep it; False on a file system that has none.

        Raises:
            HeldError: another process has it, or has given a sign of life lately from where its lock cannot be seen.
            OSError: the file cannot be made.
        """
        if self.held:
            return True
        descriptor = os.open(str(self.path), os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            locked = _patiently(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise HeldError(owner(self.path)) from None
        before = read_json(self.path)
        elsewhere = isinstance(before, dict) and not (locked and before.get("host") == platform.node())
        if elsewhere and _writing(before) and (age(self.path) or 0.0) < SILENT_S:
            os.close(descriptor)
            raise HeldError(owner(self.path))
        self._descriptor = descriptor
        self._write({"pid": os.getpid(), "host": platform.node(), "writing": True})
        _beating.add(self)
        _start_beating()
        return locked

    def beat(self) -> None:
        """A sign of life."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        if self._descriptor is None:
            return
        _beating.discard(self)
        with contextlib.suppress(OSError):
            self._write({"pid": os.getpid(), "host": platform.node(), "writing": False})
        os.close(self._descriptor)
        self._descriptor = None

    def _write(self, record: Dict[str, Any]) -> None:
        assert self._descriptor is not None
        data = json.dumps(record).encode("utf-8")
        with contextlib.suppress(OSError):  # a full disk: the lock itself needs no room
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def owner(path: Path) -> str:
    """Who wrote a lock file last, and when: "process 12 on host a, last sign of life 3 s ago"."""
    record, since = read_json(path), age(path)
    who = "another process"
    if isinstance(record, dict) and "pid" in record:
        who = "process %s on %s" % (record["pid"], record.get("host"))
    return who if since is None else "%s, last sign of life %.0f s ago" % (who, max(0.0, since))


def age(path: Path) -> Optional[float]:
    """Seconds since the last sign of life; None without a lock file."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return None


def alive(path: Path) -> Optional[bool]:
    """Whether somebody writes what this file guards; None where there is no such file to judge by.

    A process of this host is asked for; anybody else is judged by the last sign of life.
    """
    record, since = read_json(path), age(path)
    if since is None or not isinstance(record, dict):
        return None
    if not _writing(record) or since > SILENT_S:
        return False
    if record.get("host") != platform.node() or record.get("pid") == os.getpid():
        return True
    return not _free(path)


def _writing(record: Dict[str, Any]) -> bool:
    return bool(record.get("writing"))


def _free(path: Path) -> bool:
    """Whether nobody holds the lock; False where that cannot be known."""
    try:
        descriptor = os.open(str(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        return _lock(descriptor, shared=True)
    except (BlockingIOError, OSError):
        return False
    finally:
        os.close(descriptor)


def _patiently(descriptor: int, tries: int = 5) -> bool:
    """``_lock``, but not put off by somebody who only looks (``_free``)."""
    for _ in range(tries - 1):
        try:
            return _lock(descriptor)
        except BlockingIOError:
            time.sleep(0.02)
    return _lock(descriptor)


def _lock(descriptor: int, shared: bool = False) -> bool:
    """True if locked, False where there are no locks; BlockingIOError if somebody has it."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


# ---- signs of life --------------------------------------------------------------------------------------------------

_beating: weakref.WeakSet[FileLock] = weakref.WeakSet()
_thread: Optional[threading.Thread] = None


def _start_beating() -> None:
    global _thread
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_beat, name="signs of life", daemon=True)
        _thread.start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_S)
        for lock in list(_beating):
            lock.beat()
