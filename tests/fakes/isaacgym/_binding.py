"""What a pybind11 binding gives every class: closed attributes, checked types, float32, enums by value."""

from __future__ import annotations

import copy
import inspect
from functools import wraps
from typing import Any, Callable, ClassVar, Dict, List, Union, get_type_hints

import numpy as np


class Enum:
    """A pybind11 enum: made from an int, equal to its own kind only, convertible with int().

    Its annotated names are its members, numbered from 0.
    """

    _names: ClassVar[List[str]] = []

    def __init__(self, value: int, /) -> None:
        if not isinstance(value, int):
            raise TypeError("%s(): incompatible constructor arguments: %r" % (type(self).__name__, value))
        self._value = value

    def __init_subclass__(cls) -> None:
        cls._names = list(cls.__annotations__)
        for value, name in enumerate(cls._names):
            setattr(cls, name, cls(value))

    def __int__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Enum) and type(other) is type(self) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        known = 0 <= self._value < len(self._names)
        return "%s.%s" % (type(self).__name__, self._names[self._value] if known else "???")


class Struct:
    """A record whose annotated attributes are checked when set; nested records are copied in, handed out by reference.

    ``_defaults`` overrides the zero, False or default-constructed value of an attribute.
    """

    _defaults: ClassVar[Dict[str, Any]] = {}
    _types: ClassVar[Dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls)
        cls._types = {name: hint for name, hint in hints.items() if name not in ("_defaults", "_types")}

    def __init__(self) -> None:
        for name, kind in self._types.items():
            default = self._defaults.get(name)
            setattr(self, name, kind() if default is None else default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._types:
            raise AttributeError("%r object has no attribute %r" % ("gymapi." + type(self).__name__, name))
        object.__setattr__(self, name, convert(value, self._types[name], "%s.%s" % (type(self).__name__, name)))

    def __repr__(self) -> str:
        return "%s(%s)" % (type(self).__name__, ", ".join("%s=%r" % (n, getattr(self, n)) for n in self._types))

    def _copy(self) -> Any:
        return copy.deepcopy(self)


def convert(value: Any, kind: Any, where: str) -> Any:
    """``value`` as pybind11 would take it for a parameter of type ``kind``; TypeError if it would not."""
    origin = getattr(kind, "__origin__", None)
    if origin is Union:  # Optional[X]
        return None if value is None else convert(value, kind.__args__[0], where)
    if origin is list:
        if isinstance(value, (list, tuple)):
            return [convert(v, kind.__args__[0], where) for v in value]
    elif origin is not None:  # numpy arrays and tuples
        if isinstance(value, origin):
            return value
    elif kind is Any:
        return value
    elif kind is bool:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
    elif kind is int:
        if not isinstance(value, (float, np.floating)) and (hasattr(value, "__index__") or isinstance(value, Enum)):
            return int(value)
    elif kind is float:
        if isinstance(value, (int, float, np.number)):
            return float(np.float32(value))
    elif isinstance(value, kind):
        return value._copy() if isinstance(value, Struct) else value
    raise TypeError("%s: incompatible argument: expected %s, got %r" % (where, kind, value))


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse what the binding would refuse: wrong count, names or types of arguments, destroyed handles."""
    signature = inspect.signature(method)
    hints: Dict[str, Any] = {}

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not hints:
            hints.update(get_type_hints(method))
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name != "self":
                bound.arguments[name] = _argument(value, hints[name], "%s(%s)" % (method.__name__, name))
        return method(*bound.args, **bound.kwargs)

    return call


def _argument(value: Any, kind: Any, where: str) -> Any:
    value = convert(value, kind, where)
    sim = getattr(value, "sim", None)
    if sim is not None and sim.destroyed:
        raise RuntimeError("%s was called after destroy_sim" % where)
    return value


def check_all(cls: Any) -> Any:
    """Class decorator: ``checked`` around every public method."""
    for name, method in list(vars(cls).items()):
        if callable(method) and not name.startswith("_"):
            setattr(cls, name, checked(method))
    return cls
