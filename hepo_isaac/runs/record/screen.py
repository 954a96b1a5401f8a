"""Files of torch.save, looked through before torch loads them: plain containers of tensors, and nothing else.

``weights_only=True`` alone is not enough for a file from elsewhere with torch before 2.10, and Python 3.8 has no newer
one than 2.4.1: before 2.6 torch runs the code of a TorchScript archive (CVE-2025-32434), before 2.10 a pickle may write
into a tensor while it is loaded or claim a storage larger than the file's (CVE-2026-24747). So the pickle is played
first with stand-ins that have nothing to write into, and every size is compared with what the file holds.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple, Union

ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip


class ForeignError(ValueError):
    """A file that is not what torch.save makes of plain containers of tensors; the message says why."""


class _Kind:
    """Stands for a storage class of torch."""

    __slots__ = ("item_bytes",)

    def __init__(self, item_bytes: int) -> None:
        self.item_bytes = item_bytes


class _Storage:
    """Stands for a storage of ``numel`` items that the file really holds."""

    __slots__ = ("numel",)

    def __init__(self, numel: int) -> None:
        self.numel = numel


class _Tensor:
    """Stands for a tensor that fits into its storage; has nothing that a pickle could write into."""

    __slots__ = ()


def load(path: Union[str, Path]) -> Any:
    """What torch.save wrote into ``path``, on the CPU.

    Raises:
        ForeignError: it holds, or claims, more than plain containers of tensors.
        OSError: it cannot be read.
    """
    import torch

    screen(path)
    return torch.load(str(path), map_location="cpu", weights_only=True)


def screen(path: Union[str, Path]) -> None:
    """Look through a file of torch.save without torch.

    Raises:
        ForeignError, OSError: as ``load``.
    """
    try:
        with zipfile.ZipFile(str(path)) as archive:
            # torch.load does not look at checksums, so a file with a hole in it would load as garbage
            if archive.testzip() is not None:
                raise ForeignError("it is damaged (a checksum does not match)")
            prefix = _checked_names(archive)
            _Screen(archive, prefix).load()
    except (OSError, ForeignError):
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ForeignError("it is truncated or is not a checkpoint") from error
    except Exception as error:  # whatever a pickle can do wrong
        raise ForeignError("it was not written by hepo_isaac (it holds more than plain tensors and numbers)") from error


def _checked_names(archive: zipfile.ZipFile) -> str:
    """The one folder of the archive, whose files torch finds as we do."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise ForeignError("it holds a program (TorchScript) and no checkpoint")
    prefix = names[0].split("/")[0] + "/" if names else ""
    plain = (
        prefix + "data.pkl" in names
        and all(name.startswith(prefix) for name in names)
        and len({name.lower() for name in names}) == len(names)
        and all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        and min(entry.header_offset for entry in entries) == 0
    )
    if not plain:
        raise ForeignError("it is truncated or is not a checkpoint")
    return prefix


class _Screen(pickle.Unpickler):
    """Plays the pickle of an archive with stand-ins for everything that is not a plain value."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(prefix + "data.pkl")))
        self._bytes: Dict[str, int] = {entry.filename[len(prefix) :]: entry.file_size for entry in archive.infolist()}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in ITEM_BYTES:
            return _Kind(ITEM_BYTES[name])
        allowed: Dict[Tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("_codecs", "encode"): _encoded,
            ("__builtin__", "complex"): complex,
            ("builtins", "complex"): complex,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError("%s.%s" % (module, name))
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, location, numel = pid
        sound = kind == "storage" and isinstance(storage, _Kind) and isinstance(location, str) and type(numel) is int
        if not sound or self._bytes["data/" + key] != numel * storage.item_bytes:
            raise pickle.UnpicklingError("a storage that the file does not hold")
        return _Storage(numel)


def _encoded(text: str, codec: str) -> bytes:
    """How bytes are written by pickle's second protocol."""
    if codec != "latin1":
        raise pickle.UnpicklingError(codec)
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Tuple[int, ...], stride: Tuple[int, ...], *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or len(size) != len(stride) or not _counts((offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor that is none")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if all(size) and last >= storage.numel:
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return _Tensor()


def _counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
