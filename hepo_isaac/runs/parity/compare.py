"""Two recordings side by side: how far trajectories depart, what single steps differ by, reward terms, success."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hepo_isaac.runs.parity.recording import PHYSICS, Recording, check_comparable, different, positions
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE, physics_engines

# quantity -> its unit, in the order of the reports
QUANTITIES = {
    "dof_pos": "rad or m",
    "dof_vel": "rad/s or m/s",
    "root_pos": "m",
    "root_rot": "rad",
    "root_lin_vel": "m/s",
    "root_ang_vel": "rad/s",
    "obs": "",
    "r": "",
    "h": "",
}
# name that settings of some engines stand under -> the engines that read them
READERS: Dict[str, Tuple[str, ...]] = {name: (name,) for name in physics_engines()}
READERS["mujoco"] = (CPU_ENGINE, CUDA_ENGINE)
Parts = Dict[str, np.ndarray]


def compare(first: Recording, second: Recording) -> Dict[str, Any]:
    """Everything that the reports say of two recordings, as plain numbers, lists and dicts.

    Returns:
        ``free``: quantity -> {unit, spread, rows: [{step, n, median, q90, max, where}]}, absolute departures.
        ``single``: quantity -> {unit, n, median, q90, max, where} of steps that start from the same states.
        ``terms``: name (r, h and every term) -> {first, second, difference, correlation, single_max}.
        ``metrics``: name -> {first, second}.  ``episodes``: how they ended, per engine.  ``bad``: diverged worlds.
        ``physics``: settings that differ, [(key, first, second)].  ``identical``: not a bit differs.
        ``evaluation``: of a run's policies on both engines, where recorded.  ``first``, ``second``: their meta.

    Raises:
        UserError: the recordings are not of the same task, settings, start states and actions.
    """
    check_comparable(first, second)
    sides = [_Side(r, first) for r in (first, second)]
    found: Dict[str, Any] = {
        "first": first.meta,
        "second": second.meta,
        "free": _free(*sides),
        "single": _single(*sides),
        "terms": _terms(*sides),
        "metrics": _metrics(*sides),
        "episodes": {"first": sides[0].episodes(), "second": sides[1].episodes(), "steps": sides[0].steps},
        "bad": [int(side.free["bad"].sum() + side.single["bad"].sum()) for side in sides],
        "physics": _physics(first.meta, second.meta),
    }
    found["identical"] = all(
        row["max"] == 0.0 for rows in [found["single"].values(), *(q["rows"] for q in found["free"].values())]
        for row in rows
    ) and all(t["single_max"] == 0.0 and t["difference"] == 0.0 for t in found["terms"].values())  # fmt: skip
    if first.meta.get("evaluation") and second.meta.get("evaluation"):
        found["evaluation"] = _evaluation(first.meta["evaluation"], second.meta["evaluation"])
    return found


def _physics(mine: Mapping[str, Any], its: Mapping[str, Any]) -> List[Tuple[str, Any, Any]]:
    """Physics settings that differ, of those that both engines read."""

    def read(key: str) -> bool:
        readers = [READERS[part] for part in key.split(".") if part in READERS]
        return all(mine["engine"] in names and its["engine"] in names for names in readers)

    found = different(mine["task_settings"], its["task_settings"])
    return [row for row in found if row[0].split(".")[0] == PHYSICS and read(row[0])]


class _Side:
    """A recording with its columns in the order of the first one's names, and who of it counts when."""

    def __init__(self, recording: Recording, like: Recording) -> None:
        names = like.meta["names"]
        orders = {kind: positions(names[kind], recording.meta["names"][kind], kind) for kind in names}
        self.free, self.single = (
            _ordered(recording.group(part), orders, recording.meta["names"], names) for part in ("free", "single")
        )
        self.names, self.obs_steps = names, [int(k) for k in like.meta["obs_steps"]]
        self.steps = int(like.meta["steps"])
        ended = _ended(self.free)
        over = np.logical_or.accumulate(ended, 0)
        self.before = np.concatenate((np.ones_like(over[:1]), ~over[:-1]))  # (T, N) in its first episode until here
        self.length = self.before.sum(0)  # (N,) control steps of the first episode that were seen

    def episodes(self) -> Dict[str, Any]:
        """How the first episodes ended within the rollout, and after how many steps on average."""
        last = self.length - 1
        everyone = np.arange(len(last))
        return {
            "terminated": int(self.free["terminated"][last, everyone].sum()),
            "time_out": int(self.free["time_out"][last, everyone].sum()),
            "of": len(last),
            "mean_length": float(self.length.mean()),
        }


def _ended(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    return parts["terminated"] | parts["time_out"] | parts["bad"]


def _ordered(parts: Parts, orders: Parts, mine: Mapping[str, List[str]], names: Mapping[str, List[str]]) -> Parts:
    """The same quantities under one name each, columns in the order of ``names``; roots of free actors alone."""
    rows = np.array([mine["actor"].index(name) for name in names["free"]], dtype=np.int64)
    root = parts["root_state"][:, :, rows]
    return {
        "dof_pos": parts["dof_pos"][..., orders["dof"]],
        "dof_vel": parts["dof_vel"][..., orders["dof"]],
        "root_pos": root[..., :3],
        "root_rot": root[..., 3:7],
        "root_lin_vel": root[..., 7:10],
        "root_ang_vel": root[..., 10:13],
        "obs": parts["obs"],
        "r": parts["rewards"][..., :1],
        "h": parts["rewards"][..., 1:],
        "terms": parts["terms"][..., orders["term"]],
        "metrics": parts["metrics"][..., orders["metric"]],
        **{k: parts[k] for k in ("terminated", "time_out", "bad")},
    }


# ---- departures ---------------------------------------------------------------------------------------------------


def departure(quantity: str, mine: np.ndarray, its: np.ndarray) -> np.ndarray:
    """(…, components) absolute difference of arrays (…, components); angles between quaternions, one per actor."""
    a, b = mine.astype(np.float64), its.astype(np.float64)
    if quantity == "root_rot":
        # 2 asin(|a - b| / 2) of unit quaternions of the same sign: exact where they are nearly the same
        apart = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
        return np.asarray(4.0 * np.arcsin(np.clip(0.5 * apart, 0.0, 1.0)))
    return np.asarray(np.abs(a - b).reshape(*a.shape[:2], -1))


def _labels(quantity: str, names: Mapping[str, List[str]], count: int) -> List[str]:
    """What the components of a departure are called."""
    if quantity in ("dof_pos", "dof_vel"):
        return names["dof"]
    if quantity == "root_rot":
        return names["free"]
    if quantity.startswith("root_"):
        return ["%s %s" % (name, axis) for name in names["free"] for axis in "xyz"]
    if quantity == "obs":
        return ["obs[%d]" % k for k in range(count)]
    return [quantity] * count


def _free(first: _Side, second: _Side) -> Dict[str, Any]:
    """Departures of the free rollouts at obs_steps, over environments still in their first episode on both."""
    found = {}
    alive = first.before & second.before & ~(first.free["bad"] | second.free["bad"])
    for name, unit in QUANTITIES.items():
        a, b = first.free[name], second.free[name]
        if not a.size:
            continue
        if name == "obs":
            steps = list(enumerate(first.obs_steps))
        else:
            steps = [(step - 1, step) for step in first.obs_steps]
        off = departure(name, a, b)
        labels = _labels(name, first.names, off.shape[-1])
        rows = [dict(step=step, **_summary(off[row][alive[step - 1]], labels)) for row, step in steps]
        chosen = alive if name != "obs" else alive[[step - 1 for step in first.obs_steps]]
        found[name] = {"unit": unit, "spread": _spread(name, a, chosen), "rows": [row for row in rows if row["n"]]}
    return found


def _spread(quantity: str, values: np.ndarray, alive: np.ndarray) -> float:
    """How much the quantity varies on the first engine: standard deviation over environments and steps of the
    component that varies most; of rotations, the largest angle from the start."""
    if not alive.any():
        return math.nan
    if quantity == "root_rot":
        return float(departure(quantity, values, np.broadcast_to(values[:1], values.shape))[alive].max())
    return float(values[alive].astype(np.float64).reshape(int(alive.sum()), -1).std(0).max())


def _summary(off: np.ndarray, labels: Sequence[str]) -> Dict[str, Any]:
    """Of departures (n, components): median, 90 % quantile and maximum over n of the largest one, and its name."""
    if not len(off):
        return {"n": 0, "median": math.nan, "q90": math.nan, "max": math.nan, "where": ""}
    largest = off.max(-1)
    worst = int(off.max(0).argmax()) if largest.max() > 0 else None
    return {
        "n": len(off),
        "median": float(np.median(largest)),
        "q90": float(np.quantile(largest, 0.9)),
        "max": float(largest.max()),
        "where": "" if worst is None else labels[worst],
    }


def _single(first: _Side, second: _Side) -> Dict[str, Any]:
    """Departures after one control step from the same states."""
    sound = ~(first.single["bad"] | second.single["bad"])
    found = {}
    for name, unit in QUANTITIES.items():
        off = departure(name, first.single[name], second.single[name])
        if off.size:
            labels = _labels(name, first.names, off.shape[-1])
            found[name] = {"unit": unit, **_summary(off[sound], labels)}
    return found


# ---- rewards ------------------------------------------------------------------------------------------------------


def _terms(first: _Side, second: _Side) -> Dict[str, Any]:
    """Sums over each engine's first episodes, and how well the values of common steps go together."""
    common = first.before & second.before
    sound = ~(first.single["bad"] | second.single["bad"])
    found = {}
    for name, mine, its in _rewards(first, second):
        sums = [float((values * side.before).sum(0).mean()) for values, side in zip(mine[:2], (first, second))]
        single = np.abs(its[0] - its[1])[sound]
        found[name] = {
            "first": sums[0],
            "second": sums[1],
            "difference": sums[1] - sums[0],
            "correlation": correlation(mine[0][common], mine[1][common]),
            "single_max": float(single.max()) if single.size else 0.0,
        }
    return found


def _rewards(first: _Side, second: _Side) -> List[Tuple[str, List[np.ndarray], List[np.ndarray]]]:
    """(name, free values of both, single-step values of both) of r, h and every term."""

    def both(pick: Any) -> List[List[np.ndarray]]:
        return [[pick(part).astype(np.float64) for part in parts]
                for parts in ((first.free, second.free), (first.single, second.single))]  # fmt: skip

    rows: List[Any] = [(name, *both(lambda p, name=name: p[name][..., 0])) for name in ("r", "h")]
    for k, term in enumerate(first.names["term"]):
        rows.append((term, *both(lambda p, k=k: p["terms"][..., k])))
    return rows


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN where one of them is constant."""
    if a.size < 2 or a.std() == 0.0 or b.std() == 0.0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _metrics(first: _Side, second: _Side) -> Dict[str, Any]:
    """Mean of the task's metrics at the end of the first episode, or of the rollout."""
    everyone = np.arange(len(first.length))
    ends = [s.free["metrics"][s.length - 1, everyone].mean(0) for s in (first, second)]
    return {
        name: {"first": float(ends[0][k]), "second": float(ends[1][k])} for k, name in enumerate(first.names["metric"])
    }


def _evaluation(mine: Mapping[str, Any], its: Mapping[str, Any]) -> Dict[str, Any]:
    """policy -> quantity -> both estimates, the difference and its standard error."""
    found: Dict[str, Any] = {}
    for policy in [p for p in mine if p in its]:
        rows = found[policy] = {}
        a, b = _flat(mine[policy]), _flat(its[policy])
        for name in [n for n in a if n in b]:
            errors = [x["std_error"] for x in (a[name], b[name])]
            known = all(e is not None for e in errors)
            rows[name] = {
                "first": a[name],
                "second": b[name],
                "difference": b[name]["mean"] - a[name]["mean"],
                "std_error": math.hypot(*errors) if known else None,
            }
    return found


def _flat(result: Mapping[str, Any]) -> Dict[str, Any]:
    fixed = {"J": result["returns_task"], "H": result["returns_heuristic"], "episode length": result["lengths"]}
    return {**fixed, **result["metrics"]}
