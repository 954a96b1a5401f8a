"""hepo-isaac audit: parts and verdicts of runs written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.runs.compare.audit import audit, main

N = 100


def write(folder: Path, columns: Dict[str, np.ndarray]) -> Path:
    columns = {"iteration": np.arange(1, N + 1), **columns}
    lines = [",".join(columns)]
    lines += [",".join("%r" % float(columns[c][i]) for c in columns) for i in range(N)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(folder: Path, task: Dict[str, List[float]], heuristic: Dict[str, List[float]], **more: List[float]) -> Path:
    """Lines from the first value to the last with a little noise; ten episodes an iteration."""
    draw = np.random.default_rng(0)
    columns = {}
    for prefix, rows in (("return_task/", task), ("return_heuristic/", heuristic)):
        for policy, ends in rows.items():
            columns[prefix + policy] = np.interp(np.arange(N), np.linspace(0, N - 1, len(ends)), ends)
            columns[prefix + policy] = columns[prefix + policy] + 0.01 * draw.standard_normal(N)
            columns["episodes/" + policy] = np.full(N, 10.0)
    for name, ends in more.items():
        columns[name.replace("__", "/")] = np.interp(np.arange(N), np.linspace(0, N - 1, len(ends)), ends)
    return write(folder, columns)


@pytest.mark.parametrize(
    "task, heuristic, verdict, words",
    [
        ({"pi": [0, 1, 0.2]}, {"pi": [0, 1, 5]}, "hacked", "J fell from"),
        ({"pi": [0, 1, 1]}, {"pi": [0, 1, 1.2]}, "helped", "J rose with h"),
        ({"pi": [0, 0, 0]}, {"pi": [0, 1, 2]}, "neutral", "J did not follow h"),
        ({"pi": [0, 1], "pi_h": [0, 0.3]}, {"pi": [0, 1], "pi_h": [0, 2]}, "hacked", "π_H ends with"),
        (
            {"pi": [0, 1], "pi_h": [0, 1], "pi_j": [0, 0]},
            {"pi": [0, 1], "pi_h": [0, 1], "pi_j": [0, 0]},
            "helped",
            "π_J",
        ),
        (
            {"pi": [0, 1], "pi_h": [0, 1], "pi_j": [0, 1]},
            {"pi": [0, 1], "pi_h": [0, 1], "pi_j": [0, 1]},
            "neutral",
            "π_J",
        ),
    ],
)
def test_verdicts(tmp_path, task, heuristic, verdict, words):
    found = audit(run(tmp_path, task, heuristic))
    assert found.verdict == verdict and words in found.sentence


def test_parts_are_means_of_episodes_with_errors_by_hand(tmp_path):
    values, counts = np.zeros(N), np.full(N, 1.0)
    values[:10] = np.nan
    values[1], counts[1] = 1.0, 3.0
    values[2], counts[2] = 5.0, 1.0
    write(tmp_path, {"return_task/pi": values, "return_heuristic/pi": values, "episodes/pi": counts})
    first = audit(tmp_path).task["pi"][0]
    assert first.value == pytest.approx(2.0)
    assert first.error == pytest.approx(math.sqrt((0.75**2 * 1 + 0.25**2 * 9) * 2))


def test_terms_that_rose_while_r_fell_are_named(tmp_path):
    folder = run(
        tmp_path,
        {"pi": [0, 1, 0]},
        {"pi": [0, 1, 5]},
        terms__grip__pi=[0, 0, 4],
        terms__reach__pi=[0, 1, 1],
        windows=[0, 10],
    )
    found = audit(folder)
    assert [name for name, _ in found.suspects] == ["grip"] and found.violations is None


def test_violations_are_of_windows_where_there_are_any(tmp_path):
    task, heuristic = {"pi": [0, 0], "pi_h": [1, 1]}, {"pi": [0, 0], "pi_h": [1, 1]}
    assert audit(run(tmp_path, task, heuristic)).violations == 1.0
    assert audit(run(tmp_path, task, heuristic, windows=[0, 8], violations=[0, 2])).violations == 0.25


def test_the_command_prints_and_writes(tmp_path, capsys):
    folder = run(tmp_path, {"pi": [0, 1], "pi_h": [0, 0.3]}, {"pi": [0, 1], "pi_h": [0, 2]}, terms__grip__pi=[0, 4])
    assert main(["run=%s" % folder, "json=%s" % (tmp_path / "audit.json")]) == 0
    printed = capsys.readouterr().out
    assert "J(π_H)" in printed and "grip" in printed and "h alone was hacked" in printed
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "hacked"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "needs run="),
        (["run=/nowhere"], "is no folder"),
        (["runs"], "takes key=value"),
        (["run=x", "deep=true"], "has no .deep.; its keys: run, json"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        main(arguments)


def test_a_run_without_episodes_is_named(tmp_path):
    nothing = np.full(N, np.nan)
    with pytest.raises(UserError, match="no finished episode"):
        audit(write(tmp_path, {"return_task/pi": nothing, "return_heuristic/pi": nothing}))
    with pytest.raises(UserError, match="no finished episode"):
        audit(tmp_path / "empty")
