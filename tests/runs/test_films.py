"""Films while a training goes on (video_every): made beside it, handed on, and never in its way."""

from __future__ import annotations

import gc
import json
import sys
import time

import imageio.v2 as imageio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.tracking import TensorBoardSink, small_gif
from hepo_isaac.runs.record.wandb_worker import Films as WandbFilms
from hepo_isaac.runs.train.films import Films


class Folder:
    def __init__(self, path):
        self.path, self.checkpoints = path, path / "checkpoints"
        self.checkpoints.mkdir()


@pytest.fixture
def films(tmp_path, monkeypatch):
    """A maker whose process copies the checkpoint, after ``wait`` seconds, or fails."""
    made, said = [], []
    maker = Films(Folder(tmp_path), 5, lambda file, iteration: made.append((file, iteration)), said.append)
    script = "import sys,time,shutil; time.sleep(float(sys.argv[3])); shutil.copy(sys.argv[1], sys.argv[2])"

    def command(source):
        if maker.fails:
            return [sys.executable, "-c", "raise SystemExit('error: no renderer here')"]
        return [sys.executable, "-c", script, str(source), str(maker._making), str(maker.wait)]

    maker.fails, maker.wait = False, 0.0
    monkeypatch.setattr(maker, "_command", command)
    return maker, made, said


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_a_film_is_made_every_so_often_and_one_at_a_time(films, tmp_path):
    maker, made, said = films
    assert [i for i in range(1, 12) if maker.due(i)] == [5, 10]
    maker.wait = 0.5
    maker.start(5, b"weights of 5")
    assert not maker.due(10)  # the other one is still being made
    until(lambda: maker.poll() or made)
    ((file, iteration),) = made
    assert (iteration, file.name, file.read_bytes()) == (5, "iteration_000005.mp4", b"weights of 5")
    assert maker.due(15) and not said
    maker.start(15, b"weights of 15")
    maker.close(finished=True)  # waits for it
    assert [i for _, i in made] == [5, 15] and not (tmp_path / "checkpoints" / "film.pt").exists()


def test_a_stopped_run_does_not_wait_for_its_film(films, tmp_path):
    maker, made, _ = films
    maker.wait = 60.0
    maker.start(5, b"x")
    child, began = maker._child, time.monotonic()
    maker.close(finished=False)
    assert time.monotonic() - began < 10.0 and child.returncode is not None and not made


def test_a_film_that_fails_is_said_once_and_ends_them(films):
    maker, made, said = films
    maker.fails = True
    maker.start(5, b"x")
    until(lambda: maker.poll() or said)
    assert said == ["no more films (no renderer here)"] and not made
    assert not maker.due(10)
    maker.close(finished=True)


def film_file(path, frames=30):
    """A ball that goes to the right."""
    pictures = [np.full((48, 64, 3), 20, np.uint8) for _ in range(frames)]
    for k, picture in enumerate(pictures):
        picture[20:28, k * 2 : k * 2 + 4] = 250
    imageio.mimsave(path, pictures, fps=30)
    return path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves pipes to ffmpeg open
def test_tensorboard_gets_a_moving_picture(tmp_path):
    film = film_file(tmp_path / "iteration_000005.mp4")
    width, height, data = small_gif(film, width=32, frames=10)
    moving = imageio.mimread(data, memtest=False)
    assert (width, height) == (32, 24) and len(moving) == 10 and data[:3] == b"GIF"
    sink = TensorBoardSink(tmp_path / "events")
    sink.write({"iteration": 5.0, "env_steps": 640.0})
    sink.film(film, 5)
    sink.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    gc.collect()  # here, where the warning is expected
    (image,) = events.Images("film")
    assert image.step == 640 and image.encoded_image_string[:3] == b"GIF"


def test_wandb_gets_each_film_once_also_after_a_resume(tmp_path, monkeypatch):
    logged = []

    class Run:
        def log(self, row):
            logged.append(row["film_iteration"])

    class Wandb:
        Video = staticmethod(lambda path, format: path)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    for iteration in (5, 10):
        (tmp_path / ("iteration_%06d.mp4" % iteration)).write_bytes(b"x")
    resumed = WandbFilms(tmp_path, after=7)
    resumed.log(Run())
    resumed.log(Run())
    (tmp_path / "iteration_000015.mp4").write_bytes(b"x")
    resumed.log(Run())
    assert logged == [10, 15]


def test_a_training_films_itself(tmp_path, capfd, monkeypatch):
    """The real thing, on a small task without bodies; metrics are those of a run without films."""
    monkeypatch.chdir(tmp_path)
    small = ["task=Maze2D", "num_envs=16", "train.minibatch_size=128", "train.max_iterations=4", "plot=false"]
    small += ["task.episode_length=6", "torch_threads=1", "tensorboard=false"]
    assert launch.main([*small, "video_every=2", "run_root=filmed"]) == 0
    assert launch.main([*small, "run_root=plain"]) == 0
    (filmed,), (plain,) = tmp_path.glob("filmed/*/*/*"), tmp_path.glob("plain/*/*/*")
    films = sorted(p.name for p in (filmed / "videos").glob("*.mp4"))
    assert films and set(films) <= {"iteration_000002.mp4", "iteration_000004.mp4"}
    assert "film of iteration" in capfd.readouterr().out
    losses = [
        [row.split(",")[9:14] for row in (run / "metrics.csv").read_text().splitlines()] for run in (filmed, plain)
    ]
    assert losses[0] == losses[1]
    assert json.loads((filmed / "summary.json").read_text())["iterations"] == 4
