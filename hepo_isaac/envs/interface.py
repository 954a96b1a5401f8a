"""What a policy's numbers mean outside of the simulation: columns of an observation and of an action, as data.

A task declares both (Task.obs_layout, Task.action_layout); exported policies carry them, so that a robot's own loop can
fill the one and carry out the other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

# One number for all columns, or one each.
Columns = Union[float, Tuple[float, ...]]

ABSOLUTE, INTEGRATED, SWITCH = "absolute", "integrated", "switch"


@dataclass(frozen=True)
class ObsSlice:
    """Consecutive columns of an observation: scale * quantity + shift, clipped afterwards by the environment.

    size: how many columns.  unit: of the quantity, "1" if it has none.  names: one a column, where they have any.
    meaning: what the name leaves open, such as the frame.
    """

    name: str
    size: int
    unit: str
    scale: Columns = 1.0
    shift: Columns = 0.0
    names: Tuple[str, ...] = ()
    meaning: str = ""


@dataclass(frozen=True)
class ActionGroup:
    """Consecutive columns of an action a in [-1, 1], and what they become.

    names: what each of them drives, in order.  command: what is commanded.  unit: of the command.
    mode: "absolute" is offset + scale * a; "integrated" is the command of the step before + scale * a; "switch" is
        offset + scale where a >= 0 and offset elsewhere.
    lower, upper: the command is clipped to these afterwards; None is no bound.  meaning: what the rest leaves open.
    """

    names: Tuple[str, ...]
    command: str
    unit: str
    scale: Columns
    mode: str = ABSOLUTE
    offset: Columns = 0.0
    lower: Optional[Columns] = None
    upper: Optional[Columns] = None
    meaning: str = ""

    @property
    def size(self) -> int:
        """How many columns."""
        return len(self.names)


def columns(values: Any) -> Columns:
    """A tensor (K,) as one number each, to six digits; as one number where all are the same."""
    numbers = values.tolist()  # host read: what columns mean is asked for at an export
    found = tuple(float("%.6g" % value) for value in numbers)
    return found[0] if len(set(found)) == 1 else found


def described(parts: Sequence[Union[ObsSlice, ActionGroup]]) -> List[Dict[str, Any]]:
    """Plain dicts, each with the column it starts at and its size; what is empty is left out."""
    found, start = [], 0
    for part in parts:
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(part).items()}
        kept = {key: value for key, value in values.items() if value not in ("", [], None)}
        found.append({**kept, "start": start, "size": part.size})
        start += part.size
    return found
