from __future__ import annotations

import io
import math

import pytest

from hepo_isaac.runs.record.running import RunningMeans, success_metric
from hepo_isaac.runs.train import progress as module
from hepo_isaac.runs.train.progress import Eta, Progress, duration, number, rate


def test_mean_is_weighted_by_episodes_and_forgets():
    running = RunningMeans(window=100)
    running.update({"return_task/pi": 1.0, "episodes/pi": 10.0})
    running.update({"return_task/pi": 4.0, "episodes/pi": 20.0})
    assert running.mean("return_task/pi") == pytest.approx(3.0)
    running.update({"return_task/pi": math.nan, "episodes/pi": 0.0})
    running.update({"return_task/pi": math.nan, "episodes/pi": 5.0})
    running.update({"return_task/pi": 9.0, "episodes/pi": math.nan})
    assert running.mean("return_task/pi") == pytest.approx(3.0)
    running.update({"return_task/pi": 0.0, "episodes/pi": 80.0})
    # 10 + 20 + 80: without the first entry 100 remain, so it goes
    assert running.mean("return_task/pi") == pytest.approx(0.8)
    assert running.episodes("return_task/pi") == 100
    assert math.isnan(running.mean("return_task/pi_h"))


def test_policies_do_not_mix():
    running = RunningMeans()
    running.update({"return_task/pi": 1.0, "return_task/pi_h": 5.0, "episodes/pi": 1.0, "episodes/pi_h": 0.0})
    assert running.all() == {"return_task/pi": 1.0}


def test_state_round_trip():
    running = RunningMeans()
    running.update({"terms/a/pi": 0.1, "episodes/pi": 3.0})
    again = RunningMeans()
    again.load_state(running.get_state())
    assert again.all() == running.all()


def test_success_metric():
    keys = ["episode/reached/pi", "episode/success/pi", "episode/success/pi_h", "return_task/pi"]
    assert success_metric(keys) == "episode/success/pi"
    assert success_metric(keys[:1]) == "episode/reached/pi"
    assert success_metric(keys, "reached") == "episode/reached/pi"
    assert success_metric(["episode/consecutive_successes/pi", "episode/a/pi"]).startswith("episode/consecutive")
    assert success_metric(["return_task/pi"]) is None


def test_texts():
    assert [number(v) for v in (math.nan, 0.0, 0.12345, 1e-5, 12.34, 12345.6)] == [
        "–", "0.000", "0.123", "1e-05", "12.3", "12346",
    ]  # fmt: skip
    assert [rate(v) for v in (950.4, 12_345, 1.2e6, math.nan)] == ["950", "12.3k", "1.20M", "–"]
    assert [duration(v) for v in (429, 36_000, math.nan)] == ["0:07:09", "10:00:00", "–"]


def test_eta_follows_the_recent_pace():
    eta = Eta(total=100, window=5)
    now = 0.0
    assert math.isnan(eta.update(0, now))
    for i in range(1, 11):
        now += 100.0 if i == 1 else 2.0
        left = eta.update(i, now)
    assert left == pytest.approx(90 * 2.0)


def metrics(iteration):
    return {
        "iteration": iteration,
        "env_steps": iteration,
        "env_steps_per_second": 5.0,
        "return_task/pi_h": 0.0,
        "alpha": 1.0,
    }


def test_plain_lines_come_every_half_minute(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(1000, stream)
    progress.start([("task", "Fake")], 0)
    for i in range(1, 101):
        clock[0] += 1.0
        progress.update(metrics(i), RunningMeans())
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("iteration")]
    assert [line.split()[1] for line in lines] == ["1/1000", "31/1000", "61/1000", "91/1000"]
    assert "ETA 0:15:09" in lines[-1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_gets_one_bar_that_fits(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(1000, Terminal())
    progress.start([("task", "Fake")], 0)
    left, right = progress._lay_out(500, progress._facts(metrics(500), RunningMeans(), 100.0))
    progress.update(metrics(500), RunningMeans())
    progress.close()
    assert len(left) + len(right) + progress._blocks.bar_width + 2 <= columns
    assert " 500/1000" in progress.stream.getvalue()
    if columns >= 80:
        assert "α 1.000" in right


def test_an_ascii_stream_gets_ascii():
    raw = io.BytesIO()
    progress = Progress(2, io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    progress.start([("task", "Fake")], 0)
    progress.update(metrics(1), RunningMeans())
    progress.table("π – x", [["α", "1"]], ["J", "π_H"])
    text = raw.getvalue().decode("ascii")
    assert "J(pi) -" in text
    assert "alpha 1.000" in text


def test_a_reader_that_went_away_does_not_stop_the_run():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    progress = Progress(2, Closed())
    progress.start([("task", "Fake")], 0)
    progress.update(metrics(1), RunningMeans())
    progress.table("t", [["a", "1"]], ["x", "y"])
    progress.close()
