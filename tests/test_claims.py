"""The claims machine: no experiment rots, verdicts follow their rules, and a poisoned table fails."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import numpy as np
import pytest
import yaml

from hepo_isaac.config import validate
from hepo_isaac.envs.task import Task
from hepo_isaac.locate import task_class
from hepo_isaac.overrides import check_overrides, compose
from hepo_isaac.runs.compare import stats
from hepo_isaac.studies.claims import alpha_claims, claims, collecting, figures, page, plus, presets, taskcode, training
from hepo_isaac.studies.claims.collecting import _gap
from hepo_isaac.studies.claims.experiments import (
    ARMS,
    ENDS_EARLY,
    EXPERIMENTS,
    GROUPS,
    HASTY,
    HUMAN,
    NOISES,
    NOISY,
    PROBLEMS,
    QUALITY,
    ROBOT_ARMS,
    ROBOT_PROBLEMS,
    SUITE,
    WRITTEN,
)
from hepo_isaac.studies.claims.result import FAILS, HOLDS, NOT_TESTED, REGISTRY, TOO_FEW, Result, judge, share
from hepo_isaac.studies.claims.table import Table, scale
from hepo_isaac.studies.places import DOCS
from tasks.suite.analytic import AnalyticTask

pytest.importorskip("rliable")

COLUMNS = ("J", "J_se", "H", "J_ref", "J_se_ref", "H_ref", "auc", "alpha", "alpha_max", "alpha_step_var", "ess")
COLUMNS += (
    "clip_foreign",
    "violation",
    "windows",
    "ahead",
    "ahead_agree",
    "ahead_rise",
    "behind",
    "behind_agree",
    "behind_rise",
)


def rows(arm: str, problems: Iterable[str], score: float, seeds: int = 10, **other: Any) -> List[Dict[str, str]]:
    """Runs that score about ``score`` on the normalised scale, a little more with each seed."""
    out = []
    for problem in problems:
        span = scale(problem)
        for seed in range(1, seeds + 1):
            j = float(span.zero + span.unit * (score + 0.001 * seed))
            row = dict.fromkeys(COLUMNS, "")
            row.update({"arm": arm, "problem": problem, "seed": str(seed), "key": arm, "commit": "c", "date": "d"})
            row.update({"J": repr(j), "auc": repr(j), "env_steps": "1000", "J_se": "0.01"})
            row.update({k: str(v) for k, v in other.items()})
            out.append(row)
    return out


def verdict(name: str, *parts: List[Dict[str, str]]) -> str:
    """Verdict of one claim on hand-made runs."""
    return judge(name, Table([row for part in parts for row in part])).verdict


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Intervals of hand-made tables need no 2000 resamples."""
    whole = stats._bootstrap

    def fewer(arrays: Any, func: Any, reps: int, *more: Any) -> Any:
        return whole(arrays, func, min(reps, 200), *more)

    monkeypatch.setattr(stats, "_bootstrap", fewer)


# ---- what is trained ----------------------------------------------------------------------------------------------


class TestExperiments:
    @pytest.mark.parametrize("arm", sorted(ARMS))
    def test_every_arm_is_a_command_that_would_run(self, arm):
        self._check(arm, "Push2D")

    @pytest.mark.parametrize("problem", sorted(PROBLEMS))
    def test_every_problem_is_a_command_that_would_run(self, problem):
        self._check("hepo", problem)

    def _check(self, arm: str, problem: str) -> None:
        given = [*training.overrides(ARMS[arm], PROBLEMS[problem]), "seeds=[1,2]", "run_root=runs/claims"]
        check_overrides(given)
        validate(training.resolve(compose(given), given, cuda=False))

    def test_every_name_in_an_experiment_exists(self):
        for experiment in EXPERIMENTS:
            assert set(experiment.arms) <= set(ARMS)
            assert set(experiment.problems) <= set(PROBLEMS)
            assert experiment.seeds >= 1

    def test_every_claim_has_runs_and_a_row(self):
        assert set(page.ORDER) == set(REGISTRY)
        served = {c for e in EXPERIMENTS for c in e.claims} | {"C15"}
        assert {name.split()[0] for name in REGISTRY} <= served

    def test_an_unknown_claim_is_named(self):
        with pytest.raises(ValueError, match="unknown claim or experiment 'C99'; valid: C1, "):
            training.selected(["C99"])

    @pytest.mark.parametrize("name", ["franka", "robots", "hasty", "written"])
    def test_what_takes_hours_is_trained_only_when_asked_for(self, name):
        assert name not in [e.name for e in training.selected()]
        assert [e.name for e in training.selected([name])] == [name]


class TestKeys:
    def test_the_name_of_an_arm_does_not_count_and_its_settings_do(self):
        plain = training.settled(ARMS["hepo"], PROBLEMS["TwoArm"])
        renamed = {**plain, "algo": {**plain["algo"], "name": "other"}, "seed": 7, "run_root": "elsewhere"}
        changed = {**plain, "algo": {**plain["algo"], "share_data": "none"}}
        assert training.key(renamed) == training.key(plain)
        assert training.key(changed) != training.key(plain)
        assert training.key(training.settled(ARMS["hepo"], PROBLEMS["TwoPeaks"])) != training.key(plain)

    def test_a_setting_that_is_absent_is_its_default(self):
        plain = training.settled(ARMS["hepo"], PROBLEMS["TwoArm"])
        older = {**plain, "algo": {k: v for k, v in plain["algo"].items() if k != "max_stage_iterations"}}
        assert training.key(older) == training.key(plain)

    def test_a_setting_that_there_will_be_makes_no_committed_row_stale(self, monkeypatch):
        plain = training.settled(ARMS["hepo"], PROBLEMS["TwoArm"])
        before, method = training.key(plain), training.method_from_config(plain["algo"])
        later = dataclasses.make_dataclass("Later", [("new", int, 0)], bases=(type(method),), frozen=True)
        fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
        monkeypatch.setattr(training, "method_from_config", lambda algo: later(**{**fields, "name": ""}))
        assert training.key(plain) == before
        monkeypatch.setattr(training, "method_from_config", lambda algo: later(**{**fields, "name": "", "new": 1}))
        assert training.key(plain) != before

    @pytest.mark.parametrize(
        "arm, problem, new",
        [
            ("hepo", "Survival", True),
            ("hepo", "Push2D", False),
            ("ppo_h", "Survival", False),
            ("hepo_plus", "Survival", False),
        ],
    )
    def test_the_third_version_bears_on_alpha_where_episodes_end_early(self, arm, problem, new):
        config = training.settled(ARMS[arm], PROBLEMS[problem])
        assert (training.key(config, version=3) != training.key(config, version=2)) == new
        assert training.key(config, version=1) != training.key(config, version=2)

    def test_tasks_that_can_end_early_are_named(self):
        ends = set()
        tasks = {problem.task for problem in PROBLEMS.values()}
        for name in tasks:
            cls = task_class(name)
            if cls.terminated is not Task.terminated and getattr(cls, "over", None) is not AnalyticTask.over:
                ends.add(name)
        one_step = {"QuadraticPoint", "TwoArm"}  # every episode has its full length
        assert ends - one_step == tasks & set(ENDS_EARLY)

    def test_another_learner_or_task_makes_another_run_unless_it_was_given(self, monkeypatch):
        plain = training.settled(ARMS["hepo"], PROBLEMS["TwoArm"])
        assert training.key(plain, version=1) != training.key(plain)
        now, given = training.key(plain), training.kept(plain)
        monkeypatch.setattr(training, "code", lambda task, commit=None: "changed")
        assert training.key(plain) != now
        assert training.kept(plain) == given

    def test_what_is_there_is_not_trained_again(self):
        experiment = dataclasses.replace(EXPERIMENTS[0], arms=("hepo", "ppo_h"), problems=("TwoArm",), seeds=12)
        names = {("hepo", "TwoArm"): ("x", "kept-x"), ("ppo_h", "TwoArm"): ("y", "kept-y")}
        there = {("x", 1), ("x", 2), ("kept-x", 12)}
        jobs = [(j.arm.name, j.seeds) for j in training.missing([experiment], names, there)]
        assert jobs == [("hepo", tuple(range(3, 12))), ("ppo_h", tuple(range(1, 11))), ("ppo_h", (11, 12))]

    def test_arms_of_the_same_settings_share_their_runs(self):
        experiment = dataclasses.replace(EXPERIMENTS[0], arms=("hepo", "twin"), problems=("TwoArm",), seeds=3)
        names = {("hepo", "TwoArm"): ("x", "kept-x"), ("twin", "TwoArm"): ("x", "kept-x")}
        assert [j.arm.name for j in training.missing([experiment], names, set())] == ["hepo"]


class TestTaskCode:
    def test_a_task_is_what_it_was_until_its_code_changes(self, monkeypatch):
        now = taskcode.code("TwoArm")
        assert taskcode.code("TwoArm", "no such commit") == now
        source = taskcode.now("tasks/suite/two_arm.py")
        monkeypatch.setattr(taskcode, "before", lambda file, commit: taskcode.meaning(source))
        assert taskcode.code("TwoArm", "earlier") == now
        monkeypatch.setattr(taskcode, "before", lambda file, commit: taskcode.meaning(source + "\nmore = 1\n"))
        assert taskcode.code("TwoArm", "earlier") != now

    def test_files_are_found_under_the_names_they_had(self):
        assert taskcode.former("tasks/suite/push2d.py") == "tasks/push2_d.py"
        assert taskcode.former("tasks/robots/franka_cabinet_heuristics.py") == "tasks/franka_cabinet_heuristics.py"

    def test_code_that_computes_the_same_keeps_its_runs(self, monkeypatch):
        written = taskcode.written("TwoArm")
        monkeypatch.setattr(taskcode, "same", lambda: {"TwoArm": {written: "as recorded"}, "Push2D": {written: "no"}})
        assert taskcode.code("TwoArm") == "as recorded"
        assert taskcode.code("Push2D") == taskcode.written("Push2D")

    def test_comments_and_docstrings_do_not_count(self):
        assert taskcode.meaning('"""A."""\nx = 1  # one\n') == taskcode.meaning("x = 1")
        assert taskcode.meaning("x = 1") != taskcode.meaning("x = 2")


# ---- the committed files ------------------------------------------------------------------------------------------


def finished(root: Path, arm: str, problem: str, seed: int, score: float, day: str = "2026-01-02") -> None:
    """The folder of a run, with as little as collecting needs."""
    folder = training.folder(root) / problem / arm / ("%s_seed%d" % (day, seed))
    folder.mkdir(parents=True)
    evaluation = {p: {"return_task": score, "return_task_se": 0.1, "return_heuristic": 0.0} for p in ("pi", "pi_h")}
    summary = {"policies": ["pi", "pi_h"], "evaluation": evaluation, "env_steps": 100, "wall_time_s": 1.0}
    config = {**training.settled(ARMS[arm], PROBLEMS[problem]), "seed": seed}
    files = {"summary": summary, "status": {"status": "finished"}, "metadata": {"started": day, "git": None}}
    files["metadata"]["hardware"] = {"cpu": "CPU of a test"}
    for name, content in files.items():
        (folder / (name + ".json")).write_text(json.dumps(content), encoding="utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    head = "iteration,env_steps,return_task/pi,return_task/pi_h,alpha,alpha_gradient,episodes/pi,episodes/pi_h\n"
    lines = ["%d,%d,%g,0.5,0.1,0.2,10,10\n" % (k, 10 * k, 0.1 * k + score) for k in range(1, 11)]
    (folder / "metrics.csv").write_text(head + "".join(lines), encoding="utf-8")


class TestCommitted:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        experiment = dataclasses.replace(EXPERIMENTS[0], arms=("hepo", "hepo_owner"), problems=("TwoArm",), seeds=3)
        monkeypatch.setattr(collecting, "EXPERIMENTS", (experiment,))
        monkeypatch.setattr(collecting, "RUNS", tmp_path / "runs.csv")
        monkeypatch.setattr(collecting, "CURVES", tmp_path / "curves.csv")
        self.experiment, self.root = experiment, tmp_path / "first"

    def _left(self) -> List[Any]:
        """What reproduce.py would train with nothing but the committed rows."""
        names = training.keys([self.experiment])
        jobs = training.missing([self.experiment], names, collecting.committed(collecting.RUNS))
        return [(j.arm.name, j.seeds) for j in jobs]

    def _shown(self) -> Any:
        pairs = collecting.by_key(training.keys([self.experiment]))
        return collecting.current(collecting.committed(collecting.RUNS).values(), pairs)

    def test_a_committed_row_is_not_trained_again_and_a_changed_setting_is(self, monkeypatch):
        for seed in (1, 2, 3):
            finished(self.root, "hepo", "TwoArm", seed, 0.5)
        assert self._left() == [("hepo", (1, 2, 3)), ("hepo_owner", (1, 2, 3))]
        collecting.collect([self.root], [])
        assert self._left() == [("hepo_owner", (1, 2, 3))]
        changed = dataclasses.replace(ARMS["hepo"], overrides=("algo.dual_clip=4.0",))
        monkeypatch.setitem(training.ARMS, "hepo", changed)
        assert self._left() == [("hepo", (1, 2, 3)), ("hepo_owner", (1, 2, 3))]
        assert self._shown() == ([], 3)

    def test_rows_survive_their_folders(self, tmp_path):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        collecting.collect([self.root], [])
        finished(tmp_path / "second", "hepo", "TwoArm", 2, 0.7)
        collecting.collect([tmp_path / "second"], [])
        rows, stale = self._shown()
        assert [(r["seed"], r["J"]) for r in rows] == [("1", "0.5"), ("2", "0.7")]
        assert stale == 0
        before = collecting.RUNS.read_text(), collecting.CURVES.read_text()
        collecting.collect([], [])
        assert (collecting.RUNS.read_text(), collecting.CURVES.read_text()) == before
        curves = collecting.committed(collecting.CURVES, "quantity")
        assert {(seed, quantity) for _, seed, quantity in curves} == {
            (s, q) for s in (1, 2) for q in collecting.drawn("hepo", "TwoArm")
        }
        assert figures.bands(list(curves.values()))["hepo", "TwoArm", "J"].shape == (4, collecting.POINTS)

    def test_a_row_names_the_cpu_and_rows_from_before_that_stay(self, tmp_path):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        collecting.collect([self.root], [])
        lines = collecting.RUNS.read_text(encoding="utf-8").splitlines()
        assert lines[0].split(",")[-2:] == ["cpu", "key"]
        older = [",".join(cells[:-2] + cells[-1:]) for cells in (line.split(",") for line in lines)]
        collecting.RUNS.write_text("\n".join(older) + "\n", encoding="utf-8")
        finished(tmp_path / "second", "hepo", "TwoArm", 2, 0.7)
        collecting.collect([tmp_path / "second"], [])
        rows, stale = self._shown()
        assert [(r["seed"], r["J"], r["cpu"]) for r in rows] == [("1", "0.5", ""), ("2", "0.7", "CPU of a test")]
        assert stale == 0
        assert "two cores (as far as recorded: CPU of a test), no GPU" in page.state(Table(rows), 0)

    def test_the_newest_run_wins(self, tmp_path):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        collecting.collect([self.root], [])
        finished(tmp_path / "older", "hepo", "TwoArm", 1, 0.1, "2026-01-01")
        collecting.collect([tmp_path / "older"], [])
        assert [r["J"] for r in self._shown()[0]] == ["0.5"]
        finished(tmp_path / "newer", "hepo", "TwoArm", 1, 0.9, "2026-01-03")
        collecting.collect([tmp_path / "newer"], [])
        assert [r["J"] for r in self._shown()[0]] == ["0.9"]

    def test_runs_of_an_earlier_learner_are_stale_and_those_that_were_given_are_not(self, monkeypatch):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        collecting.collect([self.root], [])
        later = functools.partial(training.key, version=99)
        monkeypatch.setattr(training, "key", lambda config: later(config))
        assert self._left()[0] == ("hepo", (1, 2, 3))
        assert self._shown() == ([], 1)
        monkeypatch.undo()

    def test_a_run_that_was_given_stays(self, monkeypatch):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        collecting.collect([], [self.root])
        monkeypatch.setattr(training, "code", lambda task, commit=None: "changed")
        assert self._left()[0] == ("hepo", (2, 3))
        assert len(self._shown()[0]) == 1

    def test_runs_without_a_version_are_of_the_first(self, tmp_path):
        finished(self.root, "hepo", "TwoArm", 1, 0.5)
        old = tmp_path / "old"
        training.folder(self.root).rename(old)
        assert collecting.committed(collecting.RUNS) == {}
        assert not set(training.index([old])) & set(training.index([self.root]))
        config = training.settled(ARMS["hepo"], PROBLEMS["TwoArm"])
        assert set(training.index([old])) == {(training.key(config, version=1), 1)}

    def test_no_committed_row_of_hepo_is_stale(self):
        """A task's code that reads otherwise and computes the same goes into docs/claims/same_code.json (same_code.py);
        where it computes something else, its rows have to go, and its runs are trained anew. Code is by task, so that
        one arm on every problem tells; settings are the next test's."""
        problems = {p for e in EXPERIMENTS for p in e.problems if "hepo" in e.arms}
        rows = [r for r in collecting.committed(DOCS / "claims" / "runs.csv").values() if r["arm"] == "hepo"]
        there = {r["problem"] for r in rows}
        late = {*ROBOT_PROBLEMS, *HASTY, *WRITTEN}  # they take hours: their rows come one by one
        assert problems - late <= there <= problems
        for problem in there:
            config = training.settled(ARMS["hepo"], PROBLEMS[problem])
            keys = {r["key"] for r in rows if r["problem"] == problem}
            assert keys <= {training.key(config), training.kept(config)}, problem

    def test_every_committed_row_is_of_a_run_and_has_a_key(self):
        file = DOCS / "claims" / "runs.csv"
        with open(file, encoding="utf-8") as lines:
            assert len(collecting.committed(file)) == len(lines.readlines()) - 1


# ---- verdicts -----------------------------------------------------------------------------------------------------


class TestVerdicts:
    def test_a_better_arm_is_better_and_a_poisoned_table_fails(self):
        good, bad = rows("hepo", SUITE, 0.9), rows("ppo_h", SUITE, 0.5)
        assert verdict("C1", good, bad) == HOLDS
        assert verdict("C1", rows("hepo", SUITE, 0.1), bad) == FAILS
        poisoned = [{**r, "J": "-1000.0"} for r in good]
        assert verdict("C1", poisoned, bad) == FAILS

    def test_equal_arms_do_not_hold(self):
        assert verdict("C1", rows("hepo", SUITE, 0.5), rows("ppo_h", SUITE, 0.5)) == FAILS

    def test_missing_runs_are_too_few(self):
        assert verdict("C1", rows("hepo", SUITE, 0.9)) == TOO_FEW
        assert verdict("C1", rows("hepo", SUITE, 0.9, 4), rows("ppo_h", SUITE, 0.5, 4)) == TOO_FEW
        assert verdict("C1", rows("hepo", SUITE[:8], 0.9), rows("ppo_h", SUITE[:8], 0.5)) == TOO_FEW

    def test_a_nan_is_an_error_and_not_a_verdict(self):
        poisoned = [{**r, "J": "nan"} for r in rows("hepo", SUITE, 0.9)]
        with pytest.raises(ValueError, match="finite"):
            verdict("C1", poisoned, rows("ppo_h", SUITE, 0.5))

    def test_every_claim_without_runs_is_undecided(self):
        left = {name: judge(name, Table([])).verdict for name in REGISTRY if name != "C15"}
        assert set(left.values()) == {TOO_FEW}

    def test_hacking_needs_more_j_and_less_h(self):
        tasks = GROUPS["deceptive"]
        rival = rows("ppo_jh", tasks, 0.1, H=10.0)
        assert verdict("C7", rows("hepo", tasks, 0.8, H=5.0), rival) == HOLDS
        assert verdict("C7", rows("hepo", tasks, 0.8, H=20.0), rival) == FAILS
        assert verdict("C7", rows("hepo", tasks, 0.05, H=5.0), rival) == FAILS

    @pytest.mark.parametrize(("name", "problems", "seeds", "wanted"), [("C10", HUMAN, 5, 10), ("C20", WRITTEN, 3, 8)])
    def test_so_many_of_twelve_heuristics(self, name, problems, seeds, wanted):
        def parts(better: int) -> List[List[Dict[str, str]]]:
            mine = [rows("hepo", [p], 0.6 if i < better else 0.4, seeds) for i, p in enumerate(problems)]
            return [*mine, rows("ppo_h", problems, 0.5, seeds)]

        assert verdict(name, *parts(wanted)) == HOLDS
        assert verdict(name, *parts(wanted - 1)) == FAILS
        assert verdict(name, *parts(wanted)[1:]) == TOO_FEW

    def test_the_correlation_over_a_robots_heuristics(self):
        def parts(*scores: float) -> List[List[Dict[str, str]]]:
            mine = [rows("hepo", [p], score, 3) for p, score in zip(WRITTEN, scores)]
            return [*mine, *(rows("ppo_h", [p], i / 12, 3) for i, p in enumerate(WRITTEN))]

        near = [i / 12 + 0.08 * (-1) ** i for i in range(12)]
        assert verdict("C21", *parts(*near)) == HOLDS
        assert verdict("C21", *parts(*reversed(near))) == FAILS
        assert verdict("C21", *parts(*near[:11])) == TOO_FEW

    def test_the_constraint(self):
        free = rows("hepo_alpha0", SUITE, 0.5, violation=0.2)
        held = rows("hepo", SUITE, 0.5, violation=0.1, J_ref=-1000.0, J_se_ref=0.01)
        broken = rows("hepo", SUITE, 0.5, violation=0.1, J_ref=1000.0, J_se_ref=0.01)
        assert verdict("C3", held, free) == HOLDS
        assert verdict("C3", broken, free) == FAILS
        assert verdict("C3", held, rows("hepo_alpha0", SUITE, 0.5, violation=0.05)) == FAILS

    def test_noise_may_cost_a_tenth_while_the_reference_is_near(self):
        def found(score: float, ess: float) -> str:
            still = rows("hepo", NOISY, 0.8, 5, ess=0.8, alpha_step_var=1e-6)
            arms = ["hepo_noise_" + n for n in NOISES]
            near = [rows(a, NOISY, 0.8, 5, ess=0.5, alpha_step_var=1e-5) for a in arms[:-1]]
            return verdict("C17", still, *near, rows(arms[-1], NOISY, score, 5, ess=ess, alpha_step_var=1e-4))

        assert found(0.8, 0.3) == HOLDS
        assert found(0.75, 0.3) == HOLDS
        assert found(0.6, 0.3) == FAILS
        assert found(0.6, 0.05) == HOLDS

    def test_the_sign_of_alpha(self):
        def parts(agree: int) -> List[Dict[str, str]]:
            return rows("hepo", SUITE, 0.5, ahead=10, ahead_agree=agree, behind=2, behind_agree=2)

        assert verdict("C11", parts(10)) == HOLDS
        assert verdict("C11", parts(8)) == FAILS

    def test_who_is_behind_while_it_learns(self):
        def parts(behind: int, problems: Iterable[str] = ROBOT_PROBLEMS) -> Tuple[List[Dict[str, str]], ...]:
            suite = rows("hepo", SUITE, 0.5, windows=25, behind=1, ahead=3)
            return suite, rows("hepo", problems, 0.5, 3, windows=20, behind=behind)

        assert verdict("C19", *parts(1)) == HOLDS  # 96 % and 95 %
        assert verdict("C19", *parts(2)) == FAILS
        assert verdict("C19", *parts(0, ROBOT_PROBLEMS[1:])) == TOO_FEW
        plus_behind = rows("hepo_plus", SUITE, 0.5, windows=10, behind=9)
        assert verdict("C19", *parts(1), plus_behind) == HOLDS  # told, not judged
        assert verdict("C19", rows("hepo", [*SUITE, *ROBOT_PROBLEMS], 0.5, behind=0)) == TOO_FEW  # of before the column

    def test_c9_needs_a_task_that_can_be_learned(self):
        dense = [*rows("hepo", ["QuadraticPoint/opposite"], 0.9), *rows("ppo_j", ["QuadraticPoint"], 0.9)]
        fled = rows("hepo", ["Push2D/reversed"], 0.0)
        assert verdict("C9", dense, fled, rows("ppo_j", ["Push2D"], 0.8)) == HOLDS
        assert verdict("C9", dense, rows("hepo", ["Push2D/reversed"], 0.7), rows("ppo_j", ["Push2D"], 0.8)) == FAILS
        assert verdict("C9", dense, fled, rows("ppo_j", ["Push2D"], 0.0)) == NOT_TESTED

    def test_only_known_verdicts(self):
        with pytest.raises(ValueError, match="unknown verdict 'yes'"):
            Result("C1", "", "", "", "", "yes")


# ---- statistics ---------------------------------------------------------------------------------------------------


def test_the_share_of_counts_keeps_pairs_together():
    found = share({"a": np.array([[1, 1], [3, 6], [0, 0]]), "b": np.array([[5, 5]])})
    assert found.value == pytest.approx(9 / 12)
    assert found.high <= 1.0


def test_a_logistic_fit_finds_the_crossing():
    x = np.arange(11) / 10.0
    offset, slope = alpha_claims.logistic(x, 1.0 / (1.0 + np.exp(-(-6.0 + 10.0 * x))), 1000)
    assert -offset / slope == pytest.approx(0.6, abs=0.01)
    separated = alpha_claims.logistic(x, (x > 0.45).astype(float), 5)
    assert np.isfinite(separated).all()


def test_the_threshold_of_quality():
    success = {p: np.full(5, float(i >= 5)) for i, p in enumerate(QUALITY)}
    crossing, _ = alpha_claims.threshold(success)
    assert 0.4 <= crossing.low <= crossing.value <= crossing.high <= 0.5
    assert alpha_claims.threshold({p: np.ones(5) for p in QUALITY})[0].value == 0.0


def test_shaping_by_a_potential_changes_no_advantage():
    assert claims.shaped_change() < 1e-12


def test_the_midpoint_median_does_not_drift_and_the_lower_one_does():
    assert abs(alpha_claims.null_drift("midpoint", 300, 4000)) < 0.005
    assert alpha_claims.null_drift("lower", 300, 4000) > 0.005


def test_windows_of_the_gap():
    iterations, half = 40, np.arange(40) < 20
    noise = 0.01 * np.sin(np.arange(iterations))
    columns = {
        "return_task/pi": np.where(half, 1.0, 0.0) + noise,
        "return_task/pi_h": 0.5 + noise,
        "alpha": np.where(half, 0.0, np.arange(iterations) - 20.0),
        "alpha_gradient": np.where(half, 0.5, 0.5),
        "episodes/pi": np.full(iterations, 10.0),
        "episodes/pi_h": np.full(iterations, 10.0),
    }
    found = _gap(columns, "return_task/pi_h")
    assert (found["ahead"], found["ahead_agree"], found["ahead_rise"]) == (2, 2, 0)
    assert (found["behind"], found["behind_agree"], found["behind_rise"]) == (2, 0, 2)
    assert found["violation"] > 0.0
    assert found["windows"] == 4


def test_windows_count_where_both_finished_episodes_and_without_a_multiplier_too():
    iterations = np.arange(40)
    mine = np.where(iterations < 20, 1.0, 0.0) + 0.01 * np.sin(iterations)
    its = np.where((iterations >= 10) & (iterations < 16), np.nan, 0.5 + 0.01 * np.cos(iterations))
    found = _gap({"return_task/pi": mine, "return_task/pi_h": its}, "return_task/pi_h")
    assert (found["windows"], found["ahead"], found["behind"]) == (3, 1, 2)
    assert np.isnan(found["ahead_agree"]) and np.isnan(found["behind_rise"])


# ---- the page -----------------------------------------------------------------------------------------------------


def test_a_candidate_that_is_better_is_named_and_the_preset_under_another_name_is_not_listed():
    twin = [{**r, "key": "hepo"} for r in rows("hepo_episode_return", SUITE, 0.5)]
    table = Table([*rows("hepo", SUITE, 0.5), *twin, *rows("hepo_no_sharing", SUITE, 0.7)])
    found = presets.candidates(table)
    assert [(c.arm, c.verdict) for c in found] == [("hepo_no_sharing", "better"), ("hepo", "the preset")]
    assert "`hepo_no_sharing` (PI 1.000" in presets.best(found)


def test_the_page_says_that_runs_are_missing():
    text = page.markdown(Table([*rows("hepo", SUITE, 0.9, 5), *rows("ppo_h", SUITE, 0.5, 5)]), ["alpha.png"])
    assert "**partial**" in text
    assert "left out" not in text
    assert "7 runs of claims/runs.csv" in page.state(Table([]), 7)
    assert "**too few**" in text
    assert "claims/figures/alpha.png" in text


# ---- hepo_plus, robots, heuristics that people wrote --------------------------------------------------------------


def test_hepo_plus_is_held_against_the_best_of_three_trained_apart():
    parts = [rows("hepo_plus", SUITE, 0.9, 5), rows("ppo_h", SUITE, 0.5, 5)]
    for arm, score in (("ppo_jh_half", 0.2), ("ppo_h_quarter", 0.95), ("ppo_j_quarter", 0.4)):
        parts.append(rows(arm, SUITE, score, 5))
    table = Table([row for part in parts for row in part])
    found = {row[0]: row for row in plus.rows(table)}
    assert set(found) == {"`ppo_h`", "`portfolio`"}  # the other baselines have no runs
    assert found["`ppo_h`"][2].startswith("1.000") and found["`portfolio`"][2].startswith("0.000")
    assert found["`ppo_h`"][3].startswith("+0.400")
    assert plus.against_the_best(table) == ""
    for arm in ("ppo_j", "ppo_jh_decoupled", "hurl", "hepo"):
        parts.append(rows(arm, SUITE, 0.3, 5))
    parts.append(rows("hurl", ["Maze2D"], 0.95, 5))
    assert "Maze2D (0.050)" in plus.against_the_best(Table([row for part in parts for row in part]))


def test_robots_have_a_scale_of_their_own_and_an_iqm_only_where_everything_is_there():
    problems = ["Ant@demo", "Cartpole@demo"]
    parts = [rows(arm, problems, 0.1 * i, 3) for i, arm in enumerate(ROBOT_ARMS)]
    head, lines = plus.robots(Table([row for part in parts for row in part]))
    assert head == ["task", *ROBOT_ARMS]
    scores = ["%.2f (%s)" % (0.1 * i + 0.002, " ".join(["%.2f" % (0.1 * i)] * 3)) for i in range(5)]
    assert lines[:2] == [["Cartpole", *scores], ["Ant", *scores]]
    assert lines[2][0] == "**IQM**, 2 tasks" and lines[2][-1].startswith("0.40")
    alone = [*parts[:-1], rows(ROBOT_ARMS[-1], problems[:1], 0.4, 3)]
    _, lines = plus.robots(Table([row for part in alone for row in part]))
    assert lines[0][-1] == "–" and len(lines) == 2


def test_arms_are_compared_on_the_robots_that_both_were_on():
    """hepo is above three arms on every seed (PI 1) and on two tasks only; hepo_plus is above it on all three."""
    problems = ["Ant@demo", "Cartpole@demo", "Quadcopter@demo"]
    where = {"hepo": problems[:2]}
    parts = [rows(arm, where.get(arm, problems), 0.1 * i, 3) for i, arm in enumerate(ROBOT_ARMS)]
    lines = plus.robots_against(Table([row for part in parts for row in part]))
    pairs = [("`hepo`", "`%s`" % b, "2") for b in ROBOT_ARMS[:3]]
    pairs += [("`hepo_plus`", "`%s`" % b, "2" if b == "hepo" else "3") for b in ROBOT_ARMS[:4]]
    assert [tuple(line[:3]) for line in lines] == pairs
    assert all(line[3].startswith("1.00") for line in lines)
    assert [line[4].split(" ")[0] for line in lines] == [
        "+0.300",
        "+0.200",
        "+0.100",
        "+0.400",
        "+0.300",
        "+0.200",
        "+0.100",
    ]


def test_hasty_heuristics_have_a_table_of_their_own():
    table = Table(
        [*rows("ppo_h", HASTY[:1], 0.1, 3), *rows("hepo", HASTY[:1], 0.5, 3), *rows("hepo", ["Ant@demo"], 1.0, 3)]
    )
    head, lines = plus.hasty(table)
    assert head[0] == "task/heuristic" and [line[0] for line in lines] == ["Quadcopter/bad"]
    assert [cell.split(" ")[0] for cell in lines[0][1:]] == ["0.10", "–", "0.50", "–"]
    assert "Quadcopter/bad" in page.robots_section(table)


def test_heuristics_that_people_wrote():
    parts = [rows("ppo_h", WRITTEN[:4], 0.3, 3), rows("hepo", WRITTEN[:3], 0.7, 3), rows("hepo", WRITTEN[3:4], 0.1, 3)]
    head, lines, summary = plus.written(Table([row for part in parts for row in part]))
    assert head[0] == "heuristic" and [line[0] for line in lines] == ["h1", "h2", "h3", "h4"]
    assert "`hepo`: 3 of 4 above the heuristic alone, 3 above 0.6" in summary


def test_heuristics_that_people_wrote_are_drawn_from_three_on(tmp_path):
    def drawn(count: int) -> List[str]:
        found = [*rows("ppo_h", WRITTEN[:count], 0.3, 3), *rows("hepo", WRITTEN[:count], 0.7, 3)]
        return figures.all_figures(Table(found), {}, tmp_path)

    assert drawn(2) == [] and drawn(3) == ["written.png"]
    assert (tmp_path / "written.png").stat().st_size > 10_000
