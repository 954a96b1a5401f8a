"""A bundle as one compressed stream, cut into parts that are brought to the node one by one, and put together there.

Each part is a folder of its own: the script that joins (join.sh), a manifest, and its piece of a tar.xz stream. The
largest file comes last in the stream, so that everything before it is usable when only the first part has arrived.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import shutil
import string
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Optional, Sequence

from hepo_isaac.errors import UserError
from hepo_isaac.runs.machine.ticker import Ticker

JOIN = Path(__file__).resolve().parent / "join.sh"
MANIFEST = "parts.json"
STREAM = "bundle.tar.xz"
MANIFEST_ROOM = 8192  # bytes; what the manifest may take at most
SMALLEST = 64 * 1024
MIB = 1 << 20
DICTIONARY = 320 * MIB  # larger than warp.so, so that what is alike at its two ends is found
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": MIB, "gib": 2**30, "k": 2**10, "m": MIB, "g": 2**30}
_UNITS.update(kb=10**3, mb=10**6, gb=10**9)


def parse_size(text: str) -> int:
    """Bytes of ``60MiB``, ``60M`` (the same), ``60MB`` or ``62914560``.

    Raises:
        UserError: it is no size, or so small that a part would hold little but the script that joins.
    """
    match = re.match(r"^(\d+(?:\.\d+)?)\s*([a-z]*)$", text.strip().lower())
    if match is None or match.group(2) not in _UNITS:
        raise UserError("--max-part %s: expected a size such as 60MiB, 60MB or a number of bytes" % text)
    size = int(float(match.group(1)) * _UNITS[match.group(2)])
    if size < SMALLEST:
        raise UserError("--max-part %s is %d bytes; expected at least %d KiB" % (text, size, SMALLEST // 1024))
    return size


class PartWriter(io.RawIOBase):
    """A file that goes on in the next part's folder when one is full.

    Args:
        out: where the parts' folders ``a``, ``b``, … are made.
        limit: bytes of one part, with the script and the manifest in it.
    """

    def __init__(self, out: Path, limit: int) -> None:
        super().__init__()
        self._out = out
        self._room = limit - JOIN.stat().st_size - MANIFEST_ROOM
        self.names: List[str] = []
        self.sizes: List[int] = []
        self.digests: List[Any] = []
        self._file: Optional[BinaryIO] = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while len(left):
            if self._file is None or self.sizes[-1] == self._room:
                self._next()
            assert self._file is not None
            piece = left[: self._room - self.sizes[-1]]
            self._file.write(piece)
            self.digests[-1].update(piece)
            self.sizes[-1] += len(piece)
            left = left[len(piece) :]
        return len(memoryview(data))

    def _next(self) -> None:
        self.end()
        if len(self.names) == len(string.ascii_lowercase):
            raise UserError("the bundle is larger than 26 parts of --max-part; choose larger parts")
        name = string.ascii_lowercase[len(self.names)]
        (self._out / name).mkdir(parents=True)
        self._file = (self._out / name / ("%s.%s" % (STREAM, name))).open("wb")
        self.names.append(name)
        self.sizes.append(0)
        self.digests.append(hashlib.sha256())

    def end(self) -> None:
        """Close the part that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None


class XzWriter(io.RawIOBase):
    """Compresses what is written into another file; x86 branches are made position-independent first (BCJ).

    Args:
        to: where the stream goes.
        size: bytes that will come, for the size of the dictionary: it takes memory on both sides.
        fast: minutes less, and half as large again.
    """

    def __init__(self, to: io.RawIOBase, size: int, fast: bool) -> None:
        super().__init__()
        dictionary = min(DICTIONARY, max(MIB, -(-size // MIB) * MIB))
        lzma2: Dict[str, Any] = {"id": lzma.FILTER_LZMA2, "preset": 0 if fast else 9}
        if not fast:
            lzma2["dict_size"] = dictionary
        filters = [{"id": lzma.FILTER_X86}, lzma2]
        self._to = to
        try:
            self._xz = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)
        except MemoryError:
            raise UserError(
                "compressing needs %.1f GiB of memory, which this machine does not give; use --fast"
                % (11.5 * dictionary / 2**30)
            ) from None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._to.write(self._xz.compress(data))
        return len(data)

    def end(self) -> None:
        """Write what is still in the compressor."""
        self._to.write(self._xz.flush())


@dataclass
class Parts:
    """What was written: a folder each, and the bytes of what is in them."""

    names: List[str] = field(default_factory=list)
    sizes: List[int] = field(default_factory=list)


def write_parts(tree: Path, out: Path, limit: int, last: str, fast: bool = False) -> Parts:
    """Compress the folder ``tree`` into parts of at most ``limit`` bytes below ``out``.

    Args:
        last: the member, relative to ``tree``, that comes last and whose SHA-256 the manifest holds.
    """
    files = order(tree, last)
    total = sum((tree / name).stat().st_size for name in files)
    writer = PartWriter(out, limit)
    xz = XzWriter(writer, total, fast)
    ticker = Ticker("compressing", total // MIB, unit="MiB")
    with tarfile.open(mode="w|", fileobj=xz, format=tarfile.PAX_FORMAT) as tar:
        done = 0
        for name in files:
            with _Counted(tree / name, done, ticker) as file:
                tar.addfile(_member(tree / name, name), file)
            done += (tree / name).stat().st_size
    xz.end()
    writer.end()
    return _finish(writer, out, limit, {"name": last, "sha256": digest(tree / last)}, total)


def order(tree: Path, last: str) -> List[str]:
    """Files of ``tree`` by name, those at its top first, ``last`` at the end."""
    names = [p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()]
    return sorted((n for n in names if n != last), key=lambda n: ("/" in n, n)) + [last]


def _member(path: Path, name: str) -> tarfile.TarInfo:
    stat = path.stat()
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = stat.st_size, 0o755 if stat.st_mode & 0o100 else 0o644, int(stat.st_mtime)
    return info


class _Counted:
    """A file that is read by tarfile in small pieces, and tells how far it is."""

    def __init__(self, path: Path, before: int, ticker: Ticker) -> None:
        self._file, self._done, self._ticker = path.open("rb"), before, ticker

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        self._ticker.at(self._done // MIB)
        return data


def digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(MIB), b""):
            found.update(block)
    return found.hexdigest()


def _finish(writer: PartWriter, out: Path, limit: int, last: Dict[str, str], total: int) -> Parts:
    """Put the script and the manifest into every part."""
    digests: Sequence[str] = [d.hexdigest() for d in writer.digests]
    rows = [{"name": n, "bytes": s, "sha256": d} for n, s, d in zip(writer.names, writer.sizes, digests)]
    manifest = {
        "id": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "bytes": total,
        "last": last,
        "parts": rows,
    }
    text = json.dumps(manifest, indent=1) + "\n"
    assert len(text) <= MANIFEST_ROOM
    result = Parts(writer.names)
    for name in writer.names:
        (out / name / MANIFEST).write_text(text, encoding="utf-8")
        shutil.copyfile(str(JOIN), str(out / name / JOIN.name))
        result.sizes.append(sum(p.stat().st_size for p in (out / name).iterdir()))
    assert max(result.sizes) <= limit
    return result
