from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.metrics_csv import MetricsCsv, read_metrics
from hepo_isaac.runs.record.tracking import TensorBoardSink, Tracker, make_tracker
from hepo_isaac.runs.record.wandb_record import Plan, WandbRecord, supersede
from hepo_isaac.runs.record.wandb_sink import WandbSink
from hepo_isaac.runs.record.wandb_worker import refusal


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def row(iteration, **more):
    return {"iteration": iteration, "env_steps": 64 * iteration, **more}


def test_every_row_is_on_disk_at_once(tmp_path):
    sink = MetricsCsv(tmp_path / "metrics.csv")
    sink.write(row(1, x=0.1))
    assert rows(tmp_path / "metrics.csv") == [["iteration", "env_steps", "x"], ["1", "64", "0.1"]]
    sink.close()


def test_numbers_survive_exactly_and_nan_stays_nan(tmp_path):
    sink = MetricsCsv(tmp_path / "metrics.csv")
    sink.write(row(1, x=1 / 3, y=math.nan, z=math.inf))
    sink.close()
    found = read_metrics(tmp_path / "metrics.csv")
    assert found["x"][0] == 1 / 3
    assert math.isnan(found["y"][0])
    assert math.isinf(found["z"][0])


def test_columns_grow_and_may_be_absent(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = MetricsCsv(path)
    sink.write(row(1, a=1.0))
    sink.write(row(2, b=2.0, a=1.5))
    sink.write(row(3, b=3.0))
    sink.close()
    assert rows(path) == [
        ["iteration", "env_steps", "a", "b"],
        ["1", "64", "1.0", ""],
        ["2", "128", "1.5", "2.0"],
        ["3", "192", "", "3.0"],
    ]
    assert math.isnan(read_metrics(path)["a"][2])


def test_resume_drops_rows_after_the_checkpoint_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = MetricsCsv(path)
    for i in range(1, 8):
        sink.write(row(i, x=float(i)))
    sink.close()
    with open(path, "a") as file:
        file.write("8,512,0.12")  # killed in the middle of 0.123
    assert read_metrics(path)["iteration"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    sink = MetricsCsv(path, resume_iteration=5)
    sink.write(row(6, x=60.0))
    sink.close()
    found = read_metrics(path)
    assert found["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["x"].tolist() == [1, 2, 3, 4, 5, 60]


def test_a_torn_last_line_is_dropped_even_without_resume(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,env_steps\n1,64\n2,1")
    sink = MetricsCsv(path)
    sink.write(row(2))
    sink.close()
    assert rows(path) == [["iteration", "env_steps"], ["1", "64"], ["2", "128"]]


class FullDisk:
    """Accepts half of what is written, then fails."""

    def __init__(self, path):
        self._file = open(path, "a")  # noqa: SIM115

    def write(self, text):
        self._file.write(text[: len(text) // 2])

    def flush(self):
        self._file.flush()
        raise OSError(28, "No space left on device")

    def close(self):
        self._file.close()


def test_a_full_disk_is_an_error_and_leaves_no_half_row(tmp_path):
    sink = MetricsCsv(tmp_path / "metrics.csv")
    tracker = Tracker(sink)
    tracker.write(row(1, x=1.0))
    sink.close()
    sink._file = FullDisk(tmp_path / "metrics.csv")
    with pytest.raises(UserError, match="metrics.csv: No space left on device; expected room for a row"):
        tracker.write(row(2, x=2.0))
    tracker.close()
    assert read_metrics(tmp_path / "metrics.csv")["iteration"].tolist() == [1]


def test_a_failing_extra_is_dropped_with_one_warning(tmp_path):
    class Broken:
        calls = 0

        def write(self, metrics):
            Broken.calls += 1
            raise RuntimeError("no")

        def close(self, finished):
            raise RuntimeError("no")

    warnings = []
    tracker = Tracker(MetricsCsv(tmp_path / "m.csv"), {"TensorBoard": Broken()}, warnings.append)
    for i in range(1, 6):
        tracker.write(row(i))
    tracker.close()
    assert Broken.calls == 1
    assert len(warnings) == 1
    assert len(rows(tmp_path / "m.csv")) == 6


def test_tensorboard_can_be_read_back(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.write(row(1, **{"return_task/pi": 0.5, "unknown": math.nan}))
    sink.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    point = events.Scalars("return_task/pi")[0]
    assert (point.step, point.value) == (64, 0.5)
    assert "unknown" not in events.Tags()["scalars"]


# ---- W&B ----------------------------------------------------------------------------------------------------------


FAKE_WANDB = """
import json, os, time

def act(where):
    if os.environ.get("FAKE_WHERE") == where:
        trouble = os.environ["FAKE_TROUBLE"]
        if trouble == "raise":
            raise RuntimeError("wandb is down")
        if trouble == "exit":
            raise SystemExit(1)
        if trouble == "die":
            os._exit(1)
        time.sleep(1000)

def note(*what):
    with open(os.environ["FAKE_LOG"], "a") as file:
        file.write(json.dumps(what) + "\\n")

def Settings(**options):
    return options

def init(**options):
    print("noise that must not reach the user")
    note("init", options)
    act("init")
    return Run()

class Run:
    starting_step = 0

    def log(self, metrics, step):
        act("log")
        note("log", step, metrics)

    def finish(self, exit_code):
        act("finish")
        note("finish", exit_code)
"""


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """Put a fake wandb before the real one; the value is a function that returns what was called so far."""
    package = tmp_path / "packages"
    package.mkdir()
    (package / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = tmp_path / "calls"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def open_sink(folder, warn, **options):
    """A sink and the metrics.csv that it follows."""
    csv_file = MetricsCsv(folder / "metrics.csv")
    return Tracker(csv_file, {"W&B": WandbSink(options, csv_file.path, {"task": "Fake"}, warn)}, warn)


def log_some(tracker, count=50, start=1):
    began = time.monotonic()
    for i in range(start, start + count):
        tracker.write(row(i, x=1.0, y=math.nan))
    tracker.saved(start + count - 1)
    return time.monotonic() - began


def test_wandb_gets_the_rows(tmp_path, wandb):
    warnings = []
    tracker = open_sink(tmp_path, warnings.append, project="p", mode="offline")
    log_some(tracker, 3)
    tracker.close()
    calls = wandb()
    assert [call[0] for call in calls] == ["init", "log", "log", "log", "finish"]
    assert [call[1] for call in calls[1:4]] == [1, 2, 3]
    assert calls[1][2] == {"iteration": 1, "env_steps": 64, "x": 1.0}
    options = calls[0][1]
    assert (options["project"], options["mode"], options["config"]) == ("p", "offline", {"task": "Fake"})
    assert warnings == []


def logged(wandb):
    return [call[1] for call in wandb() if call[0] == "log"]


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_wandb_gets_what_a_checkpoint_covers_and_at_the_end_the_rest(tmp_path, wandb):
    tracker = open_sink(tmp_path, print)
    log_some(tracker, 3)
    tracker.write(row(4, new_column=1.0))  # the file is replaced by a wider one
    tracker.write(row(5, new_column=2.0))
    wait_for(lambda: logged(wandb) == [1, 2, 3])
    tracker.saved(4)
    wait_for(lambda: logged(wandb) == [1, 2, 3, 4])
    tracker.close(finished=False)
    assert logged(wandb) == [1, 2, 3, 4, 5]
    assert wandb()[-1] == ["finish", 1]


def test_a_slow_wandb_loses_nothing(tmp_path, wandb):
    tracker = open_sink(tmp_path, print)
    log_some(tracker, 5000)
    tracker.close()
    assert logged(wandb) == list(range(1, 5001))


KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.runs.test_tracking import log_some, logged, open_sink, row
tracker = open_sink(Path(sys.argv[1]), print)
log_some(tracker, 2)
tracker.write(row(3))
while not (Path(sys.argv[1]) / "wandb" / "handed.json").exists():
    time.sleep(0.02)
time.sleep(0.2)
os.kill(os.getpid(), 9)
"""


def test_the_record_of_a_killed_process_is_closed(tmp_path, wandb):
    """Although nobody reads any more what wandb prints."""
    package = tmp_path / "packages" / "wandb.py"
    loud = (
        'act("finish"); [print("wandb: WARNING", "x" * 999, file=f, flush=True) for f in (sys.stdout, sys.stderr)] * 99'
    )
    package.write_text(
        package.read_text().replace("import json, os", "import json, os, sys").replace('act("finish")', loud)
    )
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), root], timeout=60)
    wait_for(lambda: ["finish", 1] in wandb())
    assert logged(wandb) == [1, 2], "iteration 3 will be done again"
    wait_for(lambda: json.loads((tmp_path / "wandb" / "handed.json").read_text()) == {"iteration": 2, "closed": True})


def test_wandb_is_told_when_the_run_was_killed(tmp_path, wandb):
    tracker = open_sink(tmp_path, print)
    log_some(tracker, 2)
    tracker.write(row(3))
    wait_for(lambda: logged(wandb) == [1, 2])
    sink = tracker._extras["W&B"]
    sink._child.stdin.close()  # what the kernel does for a killed process
    sink._child.wait(10)
    tracker._csv.close()
    assert logged(wandb) == [1, 2], "iteration 3 will be done again"
    assert wandb()[-1] == ["finish", 1]


def test_wandb_resumes_the_same_run(tmp_path, wandb):
    for _ in range(2):
        open_sink(tmp_path, print).close()
    first, second = [call[1]["id"] for call in wandb() if call[0] == "init"]
    assert first == second
    assert len(first) == 8


@pytest.mark.parametrize("trouble", ["raise", "exit", "die"])
@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_wandb_failing_anywhere_is_one_warning(tmp_path, wandb, monkeypatch, trouble, where):
    monkeypatch.setenv("FAKE_WHERE", where)
    monkeypatch.setenv("FAKE_TROUBLE", trouble)
    warnings = []
    sink = open_sink(tmp_path, warnings.append)
    log_some(sink)
    time.sleep(0.3)
    log_some(sink, start=51)
    sink.close()
    assert len(warnings) == 1
    assert "the run goes on" in warnings[0]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_wandb_hanging_anywhere_costs_no_time(tmp_path, wandb, monkeypatch, where):
    monkeypatch.setenv("FAKE_WHERE", where)
    monkeypatch.setenv("FAKE_TROUBLE", "hang")
    warnings = []
    tracker = open_sink(tmp_path, warnings.append)
    assert log_some(tracker, 5000) < 2.0
    sink = tracker._extras.pop("W&B")
    tracker.close()
    began = time.monotonic()
    sink.close(timeout=0.5)
    assert time.monotonic() - began < 4.0
    assert sink._child.returncode is not None, "the W&B process outlives the run"
    assert len(warnings) == 1
    assert "did not finish" in warnings[0]


def test_wandb_missing_is_one_line_with_the_command(tmp_path, wandb):
    (tmp_path / "packages" / "wandb.py").write_text("import what_wandb_needs")
    warnings = []
    sink = open_sink(tmp_path, warnings.append)
    log_some(sink)
    sink.close()
    assert warnings == [
        "W&B logging is on but needs wandb (No module named 'what_wandb_needs'): pip install 'hepo-isaac[wandb]'"
    ]


def test_what_wandb_says_of_things_it_drops_and_refuses_is_found():
    assert refusal("wandb: Synced 4 W&B file(s)") == refusal("Traceback") == ""
    assert refusal("wandb: \x1b[33mWARNING\x1b[0m Tried to log to step 21") == "Tried to log to step 21"
    assert refusal("wandb: ERROR no") == "no"
    assert refusal("wandb: 403 encountered (not yours), retrying request").startswith("403 encountered (not yours)")


def test_what_wandb_drops_is_said_once_a_kind(tmp_path, wandb):
    package = tmp_path / "packages" / "wandb.py"
    said = 'print("wandb: WARNING Tried to log to step %d" % step)'
    package.write_text(package.read_text().replace('act("log")', 'act("log"); ' + said))
    warnings = []
    tracker = open_sink(tmp_path, warnings.append)
    log_some(tracker)
    tracker.close()
    assert warnings == ["W&B: Tried to log to step 1"]


def test_wandb_without_a_key_never_asks(tmp_path, wandb, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    warnings = []
    open_sink(tmp_path, warnings.append).close()
    assert wandb()[0][1]["mode"] == "offline"
    assert len(warnings) == 1
    assert "offline" in warnings[0]


class Records:
    """What wandb leaves in a run folder."""

    def __init__(self, folder):
        self.folder = folder / "wandb"
        self.record = WandbRecord(folder)
        self.folder.mkdir()

    def add(self, name, synced=None):
        """A record; ``synced``: None never, else the seconds between its last row and its upload."""
        run_id = self.record.id
        record = self.folder / ("%s-%s" % (name, run_id))
        record.mkdir()
        log = record / ("run-%s.wandb" % run_id)
        log.write_text("x")
        if synced is not None:
            marker = log.with_name(log.name + ".synced")
            marker.write_text("")
            os.utime(marker, (log.stat().st_mtime + synced,) * 2)
        return record


@pytest.fixture
def records(tmp_path):
    found = Records(tmp_path)
    found.record.begin("first")
    return found


def test_an_offline_record_that_nobody_has_seen_is_written_anew(records):
    old = records.add("offline-run-1")
    plan = records.record.plan(20, offline=True)
    assert plan == Plan("first", superseded=(old,))
    supersede(plan.superseded)
    assert [p.name for p in records.folder.iterdir()] == ["superseded-offline-run-1-first"]
    assert records.record.plan(20, offline=True) == Plan("first")


@pytest.mark.parametrize(
    ("synced", "handed", "closed", "goes_on"),
    [(1, 20, True, True), (1, 19, True, True), (1, 21, True, False), (1, 20, False, False), (-1, 20, True, False)],
)
def test_an_uploaded_record_goes_on_only_if_it_is_known_to_be_whole(records, synced, handed, closed, goes_on):
    records.add("offline-run-1", synced)
    records.record.hand(handed, closed)
    plan = records.record.plan(20, offline=True)
    if goes_on:
        assert plan == Plan("first", after=handed)
    else:
        assert plan.left == "first" and plan.id == records.record.id != "first" and plan.after == 0


def test_an_uploaded_record_is_left_where_sync_would_write_over_it(records):
    records.add("offline-run-1", 1)
    records.record.hand(20, closed=True)
    assert records.record.plan(20, offline=True, appends=False).left == "first"


def test_offline_after_online_is_a_record_of_its_own(records):
    records.add("run-1")
    records.record.hand(20, closed=True)
    assert records.record.plan(20, offline=True).left == "first"
    assert records.record.plan(20, offline=False).id != "first"


def test_online_the_server_says_what_it_has(records):
    old, synced = records.add("offline-run-1"), records.add("offline-run-2", 1)
    assert synced.is_dir()
    assert records.record.plan(3, offline=False) == Plan("first", superseded=(old,))


def test_online_going_back_leaves_the_record(tmp_path, wandb, monkeypatch):
    package = tmp_path / "packages" / "wandb.py"
    package.write_text(
        package.read_text().replace("starting_step = 0", "starting_step = int(os.environ['FAKE_STEPS'])")
    )
    metrics = MetricsCsv(tmp_path / "metrics.csv")
    for i in range(1, 11):
        metrics.write(row(i))
    metrics.close()
    WandbRecord(tmp_path).begin("first")
    for steps, expected in (("9", [9, 10]), ("11", []), ("12", list(range(1, 11)))):
        (tmp_path / "calls").unlink(missing_ok=True)
        monkeypatch.setenv("FAKE_STEPS", steps)
        warnings = []
        WandbSink({"mode": "online"}, tmp_path / "metrics.csv", {}, warnings.append, trained=10).close()
        assert logged(wandb) == expected
        names = [call[1]["name"] for call in wandb() if call[0] == "init"]
        assert [name.endswith("-from10") for name in names] == ([False, True] if steps == "12" else [False])
        assert len(warnings) == (steps == "12")


def test_wandb_is_off_by_default(folder, wandb):
    for options in (None, {}, {"enabled": False, "project": "p"}):
        make_tracker(folder, tensorboard=False, wandb=options).close()
    assert wandb() == []
    make_tracker(folder, tensorboard=False, wandb={"enabled": True, "project": "p", "entity": None}).close()
    options = wandb()[0][1]
    assert options["project"] == "p"
    assert "entity" not in options
    assert Path(options["dir"]) == folder.path


def test_wandb_options_that_cannot_be_passed_on_are_a_warning(folder, wandb):
    warnings = []
    make_tracker(folder, tensorboard=False, wandb={"enabled": True, "x": object()}, warn=warnings.append).close()
    assert len(warnings) == 1
