"""Comparing run folders: what is found, what is left out, and that every reason for doubt is named."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import yaml

from hepo_isaac import cli
from hepo_isaac.errors import UserError
from hepo_isaac.runs.compare.analysis import compare
from hepo_isaac.runs.compare.checks import numbers
from hepo_isaac.runs.compare.curves import paired_curves
from hepo_isaac.runs.compare.data import auc, collect
from hepo_isaac.runs.compare.report import markdown, write_report

# J of seeds 1–4; test_compare_stats works out what follows from them.
X = {"Reach": (1.0, 2.0, 3.0, 4.0), "Push": (0.0, 0.0, 4.0, 8.0)}
Y = {"Reach": (0.0, 2.0, 3.0, 3.0), "Push": (0.0, 1.0, 1.0, 1.0)}


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def make(root, arm, task, seed, j, status="finished", at="00:00", steps=1000, commit="c0ffee", extra=None, **parts):
    """A run folder as a training leaves it behind. parts: scores, heuristic, num_envs, gamma, lr, evaluation, rows."""
    folder = root / task / arm / ("2026-01-01_%s_seed%d" % (at.replace(":", "-"), seed))
    folder.mkdir(parents=True)
    scores = parts.get("scores", (0.0, 1.0))
    config = {
        "seed": seed,
        "num_envs": parts.get("num_envs", 8),
        "heuristic": parts.get("heuristic", "default"),
        "task": {"name": task, "scores": dict(zip(("random", "optimal"), scores)) if scores else None},
        "train": {"max_iterations": 10, "gamma": parts.get("gamma", 0.99)},
        "algo": {"name": arm, "lr": parts.get("lr", 0.1)},
        "run_root": str(root),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    about = {"started": "2026-01-01T%s:00" % at, "git": {"commit": commit, "dirty": False}}
    (folder / "metadata.json").write_text(json.dumps(about))
    (folder / "status.json").write_text(json.dumps({"status": status, "iteration": 7, **(extra or {})}))
    if status == "finished":
        final = {"return_task/pi": None if math.isnan(j) else j, "return_heuristic/pi": 10 * j}
        summary = {"env_steps": steps, "final": final, "evaluation": parts.get("evaluation")}
        (folder / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if v is not None}))
    rows = parts.get("rows", ["10,nan,0", "20,%r,1" % (j / 2), "40,%r,1" % j])
    (folder / "metrics.csv").write_text("env_steps,return_task/pi,episodes/pi\n" + "".join(r + "\n" for r in rows))
    return folder


def grid(root, arms=None, seeds=6, tasks=("Reach",), **parts):
    """Complete grid whose scores all differ."""
    for i, arm in enumerate(arms or ("hepo", "ppo_h")):
        for task in tasks:
            for seed in range(1, seeds + 1):
                make(root, arm, task, seed, 0.5 - 0.2 * i + 0.01 * seed, **parts)


def notes(root, kind, **options):
    """Texts of the notes of one kind."""
    found = compare(collect([root]), reps=100, **options).notes
    return [n.text for n in found if n.kind == kind]


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(runs):
    for arm, scores in (("hepo", X), ("ppo_h", Y)):
        for task, values in scores.items():
            for seed, j in enumerate(values, 1):
                make(runs, arm, task, seed, j)
    return collect([runs])


def test_the_hand_worked_table(table):
    found = compare(table, reps=200)
    assert found.arms == ["ppo_h", "hepo"]
    assert (found.baseline, found.score, found.scales.by) == ("ppo_h", "final", "scores")
    (one,) = found.improvements
    assert one.pi.value == pytest.approx((9.5 + 9) / 32)
    assert one.per_problem == {"Push": 9 / 16, "Reach": 9.5 / 16}
    assert one.verdict == "too few runs"
    assert found.aggregates["hepo"]["iqm"].value == 2.5
    assert found.aggregates["ppo_h"]["iqm"].value == 1.25
    assert one.iqm_difference.value == 1.25
    row = next(r for r in found.rows if (r.problem, r.arm) == ("Push", "hepo"))
    # 0 0 4 8: the middle two have mean 2
    assert (row.n, row.mean, row.iqm, row.low, row.high, row.heuristic) == (4, 3.0, 2.0, 0.0, 8.0, 30.0)
    text = markdown(found, [])
    assert "| Push | hepo | 4 | 3 | 2 | 0 … 8 | 30 | 0.56 |" in text
    assert "**hepo**: too few runs. A run of it beats one of ppo_h with probability 0.578 [" in text


def test_no_verdict_below_five_seeds_however_clear(runs):
    grid(runs, seeds=4)
    assert compare(collect([runs]), reps=100).improvements[0].verdict == "too few runs"
    assert any("hepo has fewer than 5 seeds" in text for text in notes(runs, "too few runs"))
    grid(runs / "more", seeds=5)
    assert compare(collect([runs / "more"]), reps=100).improvements[0].verdict == "better"
    assert any("0.62 takes about 91 runs" in text for text in notes(runs / "more", "too few runs"))


def test_one_thin_problem_is_enough_to_withhold_the_verdict(runs):
    grid(runs, seeds=6)
    grid(runs, seeds=4, tasks=("Push",))
    for seed in (5, 6):
        make(runs, "hepo", "Push", seed, 0.9)
    found = compare(collect([runs]), reps=100)
    assert found.improvements[0].pi.low > 0.5
    assert found.improvements[0].seeds["Push"] == (6, 4)
    assert found.improvements[0].verdict == "too few runs"


def test_unequal_seeds_are_named_and_pi_uses_all(runs):
    grid(runs, seeds=5, tasks=("Reach", "Push"))
    make(runs, "hepo", "Reach", 6, 0.0)
    found = compare(collect([runs]), reps=100)
    assert found.improvements[0].seeds == {"Push": (5, 5), "Reach": (6, 5)}
    assert found.improvements[0].per_problem["Reach"] == pytest.approx(25 / 30)
    assert found.aggregate_seeds["hepo"] == {"Push": [1, 2, 3, 4, 5], "Reach": [1, 2, 3, 4, 5]}
    assert notes(runs, "unequal seeds") == [
        "hepo has unequal numbers of seeds: its aggregates leave out Reach seeds 6 (PI uses every run)"
    ]


def test_normalised_by_task_by_baseline_and_not(runs):
    for seed in (1, 2):
        make(runs, "hepo", "Reach", seed, -5.0, scores=(-10.0, 0.0))
        make(runs, "ppo_h", "Reach", seed, -8.0, scores=(-10.0, 0.0))
    table = collect([runs])
    iqm = {n: compare(table, normalise=n, reps=100).aggregates["hepo"]["iqm"].value for n in ("scores", "none")}
    assert iqm == {"scores": 0.5, "none": -5.0}
    # |−8| is the unit and the baseline is at 1: more stays better although returns are negative
    by_baseline = compare(table, normalise="baseline", reps=100).aggregates
    assert by_baseline["hepo"]["iqm"].value == 1 + 3 / 8
    assert by_baseline["ppo_h"]["iqm"].value == 1.0
    assert "optimality_gap" not in compare(table, normalise="none", reps=100).aggregates["hepo"]


def test_a_degenerate_range_is_said(runs):
    grid(runs, scores=(0.3, 0.3))
    assert "random and optimal score are the same" in notes(runs, "normalisation")[0]
    assert compare(collect([runs]), reps=100).aggregates["hepo"]["mean"].value == pytest.approx(0.535 - 0.3)


def test_without_task_scores_returns_are_raw_and_that_is_said(runs):
    grid(runs, scores=None, tasks=("Reach", "Push"))
    assert any("nothing is normalised" in text for text in notes(runs, "normalisation"))
    assert any("raw returns" in text for text in notes(runs, "normalisation"))
    grid(runs / "b", tasks=("Lift",))
    assert notes(runs, "normalisation") == ["left out of every aggregate for want of task.scores: Push, Reach"]


def test_evaluation_is_preferred_only_if_all_have_one(runs):
    def evaluation(j):
        return {"episodes": 20, "pi": {"return_task": j, "return_task_se": 0.1, "return_heuristic": 3.0}}

    for seed in (1, 2):
        make(runs, "hepo", "Reach", seed, 0.1, evaluation=evaluation(0.9))
        make(runs, "ppo_h", "Reach", seed, 0.2, evaluation=evaluation(0.8))
    found = compare(collect([runs]), reps=100)
    assert found.score == "evaluation"
    assert [(r.arm, r.mean, r.heuristic) for r in found.rows] == [("ppo_h", 0.8, 3.0), ("hepo", 0.9, 3.0)]
    assert compare(collect([runs]), score="final", reps=100).rows[0].mean == 0.2
    make(runs, "hepo", "Reach", 3, 0.1)
    assert compare(collect([runs]), reps=100).score == "final"
    assert notes(runs, "score") == [
        "only 4 of 5 runs have an evaluation, so the final training returns of all are compared"
    ]
    assert any("evaluation score is missing" in text for text in notes(runs, "NaN scores", score="evaluation"))


def test_auc_by_hand():
    columns = {
        "env_steps": np.array([10.0, 20.0, 30.0, 60.0]),
        "return_task/pi": np.array([np.nan, 1.0, 3.0, 5.0]),
    }
    # trapezoids (1 + 3)/2 × 10 + (3 + 5)/2 × 30 over 40 steps
    assert auc(columns) == pytest.approx((20 + 120) / 40)
    assert math.isnan(auc({}))


def test_problems_are_tasks_with_their_heuristic(runs):
    make(runs, "hepo", "FrankaCabinet", 1, 0.5)
    make(runs, "hepo", "FrankaCabinet", 2, 0.5, heuristic="h3")
    make(runs, "hepo", "NotInstalled", 3, 0.5, heuristic="mine:h")
    table = collect([runs])
    assert table.problems == ["FrankaCabinet", "FrankaCabinet/h3", "NotInstalled/mine:h"]
    assert table.select(tasks=["FrankaCabinet"]).problems == ["FrankaCabinet", "FrankaCabinet/h3"]
    assert table.select(tasks=["FrankaCabinet/h3"]).problems == ["FrankaCabinet/h3"]


def test_pairs_are_of_the_same_seed(runs):
    for seed, j in ((1, 0.1), (2, 0.2), (4, 0.4)):
        make(runs, "hepo", "Reach", seed, j)
    for seed, j in ((2, 20.0), (3, 30.0), (4, 40.0)):
        make(runs, "ppo_h", "Reach", seed, j)
    table = collect([runs])
    x, y = table.paired("hepo", "ppo_h")
    assert (x["Reach"].tolist(), y["Reach"].tolist()) == ([0.2, 0.4], [20.0, 40.0])
    seeds, steps, a, b = paired_curves(table.of("hepo", "Reach"), table.of("ppo_h", "Reach"), points=3)
    assert (seeds, steps.tolist()) == ([2, 4], [20.0, 30.0, 40.0])
    assert (100 * a == pytest.approx(b)) and a.shape == (2, 3)


# ---- reasons for doubt -----------------------------------------------------------------------------------------------


def test_a_clean_grid_leaves_nothing_to_doubt(runs):
    grid(runs, seeds=48, tasks=("Reach", "Push"))
    found = compare(collect([runs]), reps=100)
    assert found.notes == []
    assert "Nothing found" in markdown(found, []) and "Runs left out" not in markdown(found, [])


def test_an_interval_without_width_is_not_certainty(runs):
    grid(runs)  # every run of one arm beats every run of the other
    assert notes(runs, "bootstrap")[0].startswith("the PI of hepo has an interval without width")


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_unfinished_runs_are_listed_and_left_out(runs, status):
    grid(runs)
    folder = make(runs, "hepo", "Reach", 7, 9.9, status=status, extra={"reason": "worlds diverged"})
    table = collect([runs])
    assert [(e.folder, e.kind) for e in table.excluded] == [(folder, status)]
    assert "at iteration 7 (worlds diverged)" in table.excluded[0].reason
    assert notes(runs, "excluded runs")[0].startswith("hepo: 1 %s left out, 6 used" % status)
    assert notes(runs, "missing runs") == ["hepo lacks Reach seed 7", "ppo_h lacks Reach seed 7"]
    assert str(folder) in markdown(compare(table, reps=100), [])


def test_a_run_without_summary_is_left_out_and_one_without_metrics_has_no_curve(runs):
    grid(runs)
    a = make(runs, "hepo", "Reach", 7, 0.5)
    (a / "summary.json").unlink()
    b = make(runs, "ppo_h", "Reach", 7, 0.5)
    (b / "metrics.csv").unlink()
    table = collect([runs])
    assert [(e.folder, e.kind) for e in table.excluded] == [(a, "no summary")]
    assert str(b) in notes(runs, "no learning curve")[0]
    assert compare(table, reps=100).curves["Reach"]["ppo_h"].seeds == 6
    assert "auc score is nan" in notes(runs, "NaN scores", score="auc")[0]


def test_a_damaged_config_is_listed(runs):
    grid(runs)
    folder = make(runs, "hepo", "Reach", 7, 0.5)
    (folder / "config.yaml").write_text("algo: [")
    assert collect([runs]).excluded[0].folder == folder
    assert "runs with an unreadable config.yaml: 1 unreadable" in notes(runs, "excluded runs")[0]


def test_of_two_runs_the_newest_finished_one_is_kept(runs):
    grid(runs)
    old = collect([runs]).of("hepo", "Reach")[0].folder
    make(runs, "hepo", "Reach", 1, 0.77, at="03:00")
    make(runs, "hepo", "Reach", 1, 0.99, at="04:00", status="failed")
    table = collect([runs])
    assert table.scores("hepo")["Reach"][0] == 0.77
    assert notes(runs, "duplicate runs") == [
        "hepo on Reach, seed 1: %s is left out, the newest finished run is kept" % old
    ]


def test_the_same_folder_given_twice_is_one_run(runs):
    grid(runs)
    table = collect([runs, runs / "Reach", str(runs / "*" / "hepo")])
    assert (len(table.runs), table.excluded) == (12, ())


def test_nan_scores_are_named_counted_and_never_averaged(runs):
    grid(runs)
    folder = make(runs, "hepo", "Reach", 7, math.nan)
    found = compare(collect([runs]), reps=100)
    assert next(r for r in found.rows if r.arm == "hepo").n == 6
    assert math.isfinite(found.aggregates["hepo"]["mean"].value)
    (text,) = notes(runs, "NaN scores")
    assert text.startswith("hepo: 1 finished run left out") and str(folder) in text


def test_unequal_budgets_are_named(runs):
    grid(runs, arms=("ppo_h",), num_envs=16)
    grid(runs, arms=("hepo",), steps=1_000_000)
    (text,) = notes(runs, "unequal budgets")
    assert "; mind the unequal budgets below." in markdown(compare(collect([runs]), reps=100), [])
    assert text == "Reach: env steps hepo 1,000,000, ppo_h 1,000; num_envs hepo 8, ppo_h 16"


def test_holes_in_the_grid_are_named(runs):
    grid(runs)
    make(runs, "hepo", "Reach", 8, 0.5)
    make(runs, "hepo", "Push", 1, 0.5)
    assert notes(runs, "missing runs") == ["ppo_h lacks all of Push; Reach seed 8"]
    assert notes(runs, "aggregates") == ["not in any aggregate, as an arm is missing: Push"]


def test_arms_without_a_common_problem(runs):
    make(runs, "hepo", "Reach", 1, 0.5)
    make(runs, "ppo_h", "Push", 1, 0.5)
    found = compare(collect([runs]), reps=100)
    assert found.improvements[0].pi is None and found.aggregates == {}
    assert "hepo shares no problem with the baseline ppo_h" in notes(runs, "missing runs")
    assert "no problem has runs of every arm, so nothing is aggregated" in notes(runs, "aggregates")
    assert "too few runs" in markdown(found, [])


def test_a_baseline_without_variance_is_named(runs):
    for seed in range(1, 7):
        make(runs, "hepo", "Reach", seed, 0.1 * seed)
        make(runs, "ppo_j", "Reach", seed, 0.0)
    (text,) = notes(runs, "no variance", baseline="ppo_j")
    assert text.startswith("all runs of the baseline ppo_j score the same on each of Reach")


def test_different_code_is_named(runs):
    grid(runs)
    assert notes(runs, "different code") == []
    make(runs, "hepo", "Reach", 7, 0.5, commit="beef")
    assert notes(runs, "different code") == [
        "runs come from 2 states of the code: beef (1 hepo); c0ffee (6 hepo, 6 ppo_h)"
    ]


def test_different_settings_are_named(runs):
    grid(runs)
    make(runs, "hepo", "Reach", 7, 0.5, lr=0.2)
    assert notes(runs, "different settings") == ["Reach: hepo differs in algo.lr 0.1 or 0.2"]
    grid(runs / "b", arms=("pbrs",), gamma=0.9)
    assert "Reach: the arms differ beside algo.* in train.gamma (hepo 0.99, pbrs 0.9, ppo_h 0.99)" in notes(
        runs, "different settings"
    )


def test_many_comparisons_are_counted(runs):
    grid(runs, arms=("a", "b", "c", "ppo_h"))
    assert notes(runs, "many comparisons")[0].startswith("3 arms are tested")


def test_numbers_in_words():
    assert numbers([3, 1, 2, 7, 9, 10]) == "1–3, 7, 9, 10"


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"baseline": "ppo"}, "unknown baseline 'ppo': did you mean 'ppo_h'"),
        ({"arms": ["hepo", "x"]}, "unknown arm 'x'"),
        ({"tasks": ["Raech"]}, "unknown task 'Raech': did you mean 'Reach'"),
        ({"arms": ["hepo"], "tasks": ["Push"]}, "no finished run of arms hepo on tasks Push"),
        ({"score": "best"}, "unknown score 'best'"),
        ({"normalise": "z"}, "unknown normalisation 'z'"),
        ({"reps": 10}, "reps=10 is too few"),
        ({"baseline": "nan"}, "no run of the baseline nan has a finite final score"),
        ({"arms": ["nan"]}, "none of the 1 finished runs has a finite final score"),
    ],
)
def test_bad_options_are_one_sentence(runs, options, words):
    grid(runs, seeds=2)
    make(runs, "ppo_h", "Push", 1, 0.5)
    make(runs, "nan", "Reach", 1, math.nan)
    with pytest.raises(UserError) as caught:
        compare(collect([runs]), **{"reps": 100, **options})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_read_is_an_error(runs):
    with pytest.raises(UserError, match="no folder at"):
        collect([runs / "nope"])
    (runs / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match="no runs in"):
        collect([runs / "empty"])
    make(runs, "hepo", "Reach", 1, 0.5, status="failed")
    make(runs, "hepo", "Reach", 2, 0.5, status="interrupted")
    with pytest.raises(
        UserError, match=r"none of the 2 runs found is finished and readable \(1 failed, 1 interrupted\)"
    ):
        collect([runs])


# ---- report and command ----------------------------------------------------------------------------------------------


def test_the_report_is_whole_and_can_be_made_again(runs, tmp_path):
    import imageio.v2 as imageio

    grid(runs, arms=("hepo", "ppo_h", "ppo_j"), tasks=("Reach", "Push"))
    make(runs, "hepo", "Reach", 9, 0.5, status="failed")
    texts = []
    for name in ("a", "b"):
        path = write_report(compare(collect([runs]), reps=100, seed=3), tmp_path / name)
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    for figure in ("curves.png", "intervals.png", "profile.png"):
        assert "(%s)" % figure in texts[0]
        assert len(np.unique(imageio.imread(tmp_path / "a" / figure).reshape(-1, 4), axis=0)) > 100
    with open(tmp_path / "a" / "scores.csv", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    assert (len(scores), sum(int(r["used"]) for r in scores)) == (37, 36)
    assert "it failed" in scores[-1]["left_out"]
    with open(tmp_path / "a" / "summary.csv", encoding="utf-8") as file:
        summary = {r["arm"]: r for r in csv.DictReader(file)}
    assert (summary["hepo"]["pi"], summary["ppo_j"]["verdict"], summary["ppo_h"]["verdict"]) == (
        "1.0",
        "worse",
        "baseline",
    )
    assert summary["ppo_h"]["pi"] == ""


def test_the_command(runs, tmp_path, capfd):
    grid(runs)
    make(runs, "hepo", "Reach", 7, 0.5, status="failed")
    code = cli.main(["compare", str(runs), "--baseline", "ppo_h", "--out", str(tmp_path / "out"), "--reps", "100"])
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert "better" in out and "excluded runs" in out and "report.md" in out
    assert (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no folder given"),
        (["{runs}", "--basline", "x"], "--basline"),
        (["{runs}", "--score", "best"], "--score"),
        (["{runs}", "--reps", "many"], "--reps"),
        (["{runs}", "--seed", "-1"], "--seed"),
        (["{runs}", "--baseline", "nope"], "unknown baseline 'nope'"),
        (["nowhere"], "no folder at nowhere"),
        (["{runs}", "--reps", "100", "--out", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_mistakes_exit_with_2_and_one_line(runs, capfd, arguments, words):
    grid(runs, seeds=2)
    code = cli.main(["compare", *(a.format(runs=runs) for a in arguments)])
    out, err = capfd.readouterr()
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert "Traceback" not in err


def test_one_arm_alone_still_has_a_report(runs, tmp_path):
    grid(runs, arms=("hepo",), seeds=1)
    found = compare(collect([runs]), reps=100)
    assert (found.baseline, found.improvements) == ("hepo", [])
    assert write_report(found, tmp_path / "out").is_file()
