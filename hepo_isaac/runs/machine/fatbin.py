"""One GPU architecture of a shared object's fat binaries: what Warp's library weighs for a single kind of card.

nvcc puts each translation unit's device code into the section ``.nv_fatbin`` as a fat binary: a header, then one entry
per architecture (machine code) or virtual architecture (PTX). A bundle is for one card, so one entry of each is enough.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Set, Tuple, Union

from hepo_isaac.errors import UserError

SECTION = ".nv_fatbin"
MAGIC = 0xBA55ED50
_FILE = struct.Struct("<IHHQ")  # magic, version, size of this header, size of all entries
_ENTRY = struct.Struct("<HHIQ")  # kind, version, size of this header, size of the payload
_SM = 28  # where an entry's header holds the architecture's number
MACHINE_CODE = 2
Buffer = Union[bytes, bytearray]


@dataclass(frozen=True)
class Entry:
    """One architecture's code in a fat binary: its place in the file, header and all."""

    kind: int
    sm: int
    at: int
    size: int


@dataclass(frozen=True)
class FatBinary:
    """One fat binary: where its entries lie in the file."""

    at: int
    header: int
    size: int
    entries: Tuple[Entry, ...]


@dataclass(frozen=True)
class Slimmed:
    """What ``keep`` did: fat binaries, bytes of machine code kept and bytes zeroed."""

    count: int
    kept: int
    zeroed: int


def _section(data: Buffer, name: str, where: str) -> Tuple[int, int]:
    """Offset and size of a section of a 64-bit little-endian ELF file."""
    if bytes(data[:6]) != b"\x7fELF\x02\x01":
        raise UserError("%s is no 64-bit ELF file; expected a Linux shared object" % where)
    try:
        (table,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        heads = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
        text = heads[names][4]
        for head in heads:
            start = text + head[0]
            if bytes(data[start : start + len(name) + 1]) == name.encode() + b"\0":
                if head[4] + head[5] > len(data):
                    break
                return head[4], head[5]
    except (struct.error, IndexError) as error:
        raise UserError("%s is cut short: its table of ELF sections lies beyond its end" % where) from error
    raise UserError("%s has no whole section %s; expected a library that nvcc has linked" % (where, name))


def fat_binaries(data: Buffer, where: str = "the file") -> Iterator[FatBinary]:
    """Every fat binary of an ELF file.

    Raises:
        UserError: the file is no ELF file, has no fat binaries, or one that is laid out otherwise than nvcc does.
    """
    at, size = _section(data, SECTION, where)
    end, found = at + size, 0
    while at + _FILE.size <= end:
        magic, version, header, length = _FILE.unpack_from(data, at)
        if magic != MAGIC:
            at += 8  # padding between two of them
            continue
        if version != 1 or header < _FILE.size or at + header + length > end:
            raise UserError(
                "%s: the fat binary at byte %d has version %d and %d bytes; expected version 1 within its section"
                % (where, at, version, length)
            )
        yield FatBinary(at, header, length, tuple(_entries(data, at + header, length, where)))
        found += 1
        at += header + length
    if not found:
        raise UserError("%s: section %s holds no fat binary; expected at least one" % (where, SECTION))


def _entries(data: Buffer, at: int, size: int, where: str) -> Iterator[Entry]:
    end = at + size
    while at < end:
        if at + _SM + 4 > end:
            break
        kind, _, header, payload = _ENTRY.unpack_from(data, at)
        (sm,) = struct.unpack_from("<I", data, at + _SM)
        if header < _SM + 4:
            break
        yield Entry(kind, sm, at, header + payload)
        at += header + payload
    if at != end:
        raise UserError(
            "%s: entries of a fat binary end at byte %d; expected %d, where its header says" % (where, at, end)
        )


def architectures(data: Buffer, where: str = "the file") -> List[int]:
    """Numbers of the architectures whose machine code every fat binary of the file holds, sorted (90 for sm_90)."""
    common: Set[int] = set()
    for index, fat in enumerate(fat_binaries(data, where)):
        own = {e.sm for e in fat.entries if e.kind == MACHINE_CODE}
        common = own if index == 0 else common & own
    return sorted(common)


def keep(data: bytearray, sm: int, where: str = "the file") -> Slimmed:
    """Make every fat binary of ``data`` one with the machine code of ``sm`` alone, in place.

    What follows the entry is zeroed, and compresses to nothing; every offset in the file stays as it was, so the
    linker's tables remain true.

    Raises:
        UserError: some fat binary does not hold exactly one entry of machine code for ``sm``.
    """
    found = list(fat_binaries(data, where))
    chosen = [[e for e in fat.entries if e.kind == MACHINE_CODE and e.sm == sm] for fat in found]
    for fat, mine in zip(found, chosen):  # before anything is written
        if len(mine) != 1:
            raise UserError(
                "%s: sm_%d is %d times in the fat binary at byte %d; expected once (all of them hold: %s)"
                % (where, sm, len(mine), fat.at, ", ".join("sm_%d" % s for s in architectures(data, where)) or "none")
            )
    kept = zeroed = 0
    for fat, (entry,) in zip(found, chosen):
        body = bytes(data[entry.at : entry.at + entry.size])
        start = fat.at + fat.header
        data[start : start + fat.size] = body + bytes(fat.size - len(body))
        struct.pack_into("<Q", data, fat.at + 8, len(body))
        kept, zeroed = kept + len(body), zeroed + fat.size - len(body)
    return Slimmed(len(found), kept, zeroed)


def keep_in_file(path: Path, sm: int) -> Slimmed:
    """``keep`` on a file."""
    data = bytearray(path.read_bytes())
    slimmed = keep(data, sm, path.name)
    path.write_bytes(data)
    return slimmed
