"""What an evaluation is worth: means, their standard errors and how many episodes they rest on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Union

import numpy as np

Numbers = Union[Sequence[float], np.ndarray, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over n episodes and its standard error; NaN where n does not allow one (mean n ≥ 1, error n ≥ 2)."""

    mean: float
    std_error: float
    n: int

    def text(self) -> str:
        """As "12.34 ± 0.56", without an error where there is none."""
        return "%.4g ± %.2g" % (self.mean, self.std_error) if self.n > 1 else "%.4g" % self.mean


@dataclass(frozen=True)
class EvaluationResult:
    """One policy's evaluation.

    returns_task, returns_heuristic: undiscounted episode returns J and H.  lengths: control steps.
    metrics: the task's own numbers at episode end, by name.
    """

    policy: str
    returns_task: Estimate
    returns_heuristic: Estimate
    lengths: Estimate
    metrics: Dict[str, Estimate] = field(default_factory=dict)

    @classmethod
    def from_episodes(
        cls,
        policy: str,
        returns_task: Numbers,
        returns_heuristic: Numbers,
        lengths: Numbers,
        metrics: Mapping[str, Numbers],
    ) -> EvaluationResult:
        """Build from one number per finished episode, in the same order everywhere.

        Raises:
            ValueError: the sequences are of different lengths, so they are not of the same episodes.
        """
        columns = {"returns_task": returns_task, "returns_heuristic": returns_heuristic, "lengths": lengths}
        columns.update({"metrics[%r]" % k: v for k, v in metrics.items()})
        counts = {name: _flat(values).size for name, values in columns.items()}
        if len(set(counts.values())) > 1:
            raise ValueError("episode counts differ: %s" % ", ".join("%s %d" % pair for pair in counts.items()))
        return cls(
            policy,
            estimate(returns_task),
            estimate(returns_heuristic),
            estimate(lengths),
            {name: estimate(values) for name, values in metrics.items()},
        )

    def to_dict(self) -> Dict[str, Any]:
        """Nested plain dicts."""
        return asdict(self)


def _flat(values: Numbers) -> np.ndarray:
    """One-dimensional float64 array of a list, an array or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64).reshape(-1)


def estimate(values: Numbers) -> Estimate:
    """Mean, standard error (sample deviation over √n) and n of one number per episode."""
    found = _flat(values)
    n = int(found.size)
    mean = float(found.mean()) if n else math.nan
    error = float(found.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Estimate(mean, error, n)


def summarise(
    returns_task: Mapping[str, Numbers],
    returns_heuristic: Mapping[str, Numbers],
    lengths: Mapping[str, Numbers],
    metrics: Mapping[str, Mapping[str, Numbers]],
) -> Dict[str, Dict[str, Any]]:
    """Summarise finished episodes per policy.

    Args:
        returns_task, returns_heuristic, lengths: policy name -> one number per episode.
        metrics: policy name -> metric name -> one number per episode; policies may be missing.

    Returns:
        policy name -> {"returns_task": {"mean", "std_error", "n"}, "returns_heuristic", "lengths", "metrics": {…}}.

    Raises:
        ValueError: the sequences of one policy are of different lengths.
    """
    out: Dict[str, Dict[str, Any]] = {}
    for policy in returns_task:
        result = EvaluationResult.from_episodes(
            policy, returns_task[policy], returns_heuristic[policy], lengths[policy], metrics.get(policy, {})
        )
        out[policy] = result.to_dict()
    return out


def evaluation_rows(results: Mapping[str, Mapping[str, Any]]) -> List[List[str]]:
    """Table rows "name, mean ± error per policy" of what ``summarise`` returned; the header is the policies' order."""
    names = ["returns_task", "returns_heuristic", "lengths"]
    rows = [[name] + [_text(results[p][name]) for p in results] for name in names]
    extra: List[str] = []
    for result in results.values():
        extra += [m for m in result["metrics"] if m not in extra]
    for name in extra:
        empty = {"mean": math.nan, "std_error": math.nan, "n": 0}
        rows.append([name] + [_text(results[p]["metrics"].get(name, empty)) for p in results])
    return rows


def _text(value: Mapping[str, Any]) -> str:
    if not value["n"]:
        return "–"
    if math.isnan(value["std_error"]):
        return "%.3g (n=1)" % value["mean"]
    return "%.3g ± %.2g (n=%d)" % (value["mean"], value["std_error"], value["n"])
