"""hepo-isaac play: which episode is shown, whose, where the film goes, and what is said meanwhile."""

from __future__ import annotations

import io
import time

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import yaml

from hepo_isaac import cli, train
from hepo_isaac.envs.make import make_env
from hepo_isaac.overrides import compose
from hepo_isaac.runs import launch
from hepo_isaac.runs.play import film
from hepo_isaac.runs.play.drawn import split
from hepo_isaac.runs.play.recording import Episode, about, best, record
from hepo_isaac.runs.play.video_worker import side_by_side
from hepo_isaac.runs.record import steps
from hepo_isaac.runs.record.steps import Steps


def episode(number, task, success=None, policy="pi", length=3):
    frames = [{"pos": np.array([0.1 * t, 0.2]), "speed": np.array(0.5)} for t in range(length)]
    return Episode(policy, number, task, 2.0 * task, success, frames, np.full((length, 2), task / length))


# ---- which episode -----------------------------------------------------------------------------------------------


def test_a_success_is_shown_before_a_higher_return():
    found = [episode(1, 5.0, 0.0), episode(2, 3.0, 1.0), episode(3, 4.0, 1.0), episode(4, 9.0, 0.0)]
    assert best(found).number == 3
    assert best([episode(1, 1.0), episode(2, 2.0)]).number == 2
    said = about(best(found), found)
    assert said == "pi: episode 3 of 4, J 4, H 8; median J of all 4.5, success in 2"


def environment(task, envs, *more):
    given = ["task=" + task, "algo=ppo_h", "num_envs=%d" % envs, "train.minibatch_size=%d" % (4 * envs), *more]
    cfg = launch.prepare(compose([*given, "device=cpu"]), given)
    return cfg, make_env(cfg, random_start=False)


def test_what_is_recorded_is_what_happened():
    """An episode of every env: its J is the sum of its steps, and its pictures begin at its start."""
    cfg, env = environment("Push2D", 5, "task.episode_length=7")
    generator = torch.Generator().manual_seed(3)
    taken = []

    def act(obs):
        taken.append(obs.clone())
        return 2.0 * torch.rand(5, env.num_actions, generator=generator) - 1.0

    found = record(cfg, env, act, "pi")
    assert [e.number for e in found] == [1, 2, 3, 4, 5]
    for index, one in enumerate(found):
        assert len(one.frames) == len(one.rewards) == 7
        np.testing.assert_allclose(one.rewards.sum(0), [one.task, one.heuristic], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.frames[0]["pos"], taken[0][index, : len(one.frames[0]["pos"])], atol=1e-6)
    assert len({e.heuristic for e in found}) == 5


def test_an_episode_that_diverged_is_played_again(monkeypatch):
    cfg, env = environment("Push2D", 2, "task.episode_length=4")
    step, calls = env.step, []

    def diverging(actions):
        result = step(actions)
        calls.append(1)
        if len(calls) == 2:
            result.bad[0], result.done[0] = True, True
        return result

    monkeypatch.setattr(env, "step", diverging)
    found = record(cfg, env, lambda obs: torch.zeros(2, env.num_actions), "pi")
    assert len(found) == 2 or [e.number for e in found] == [2]
    assert all(len(e.frames) <= 4 and np.isfinite(e.rewards).all() for e in found)


# ---- the picture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, shape", [(1, (4, 6)), (2, (4, 12)), (3, (4, 18)), (4, (8, 12)), (5, (8, 18))])
def test_tiles_stand_in_a_grid(count, shape):
    tiles = [np.full((4, 6, 3), k + 1, np.uint8) for k in range(count)]
    (frame,) = side_by_side(iter([tiles]), [""] * count)
    assert frame.shape[:2] == shape
    assert [int((frame == k + 1).all(2).sum()) for k in range(count)] == [24] * count


def test_a_label_is_written_on_its_tile():
    black = np.full((120, 160, 3), 90, np.uint8)
    (frame,) = side_by_side(iter([[black]]), ["pi: J 0.8"])
    assert (frame[:20, :60] == 255).any() and (frame[40:] == 90).all()


def test_a_state_is_points_in_a_plane_and_numbers():
    points, curves = split(episode(1, 1.0).frames)
    assert list(points) == ["pos"] and points["pos"].shape == (3, 2)
    assert list(curves) == ["speed"] and curves["speed"].shape == (3,)


def test_a_task_without_bodies_is_drawn(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["task=Maze2D", "run=random", "task.episode_length=5", "episodes=3"]
    assert cli.main(["play", *short, "out=film.gif"]) == 0
    frames = imageio.mimread(tmp_path / "film.gif", memtest=False)
    assert len(frames) == 5 and frames[0].std() > 5 and not np.array_equal(frames[0], frames[-1])
    out = capfd.readouterr().out
    assert "episode" in out and "of 3" in out and "video: film.gif" in out


def test_robots_are_filmed_side_by_side(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["task=Cartpole", "policy=both", "task.episode_length=6", "episodes=2", "grid=2", "every=2"]
    assert cli.main(["play", *short, "out=film.gif"]) == 0
    frames = imageio.mimread(tmp_path / "film.gif", memtest=False)
    assert len(frames) == 3 and frames[0].shape[:2] == (2 * 288, 2 * 384)
    tiles = [frames[0][y : y + 288, x : x + 384].astype(float) for y in (0, 288) for x in (0, 384)]
    assert all(tile.std() > 10 for tile in tiles) and np.abs(tiles[0] - tiles[2]).mean() > 0.05
    out = capfd.readouterr().out
    assert "pi: episode" in out and "pi_h: episode" in out


# ---- where it goes, and whose it is ------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Nothing is played or drawn; what would be drawn is kept."""
    asked = []
    nothing = film.Film([], [], "", 1.0)
    monkeypatch.setattr(film, "played", lambda cfg, checkpoint, names, grid: asked.append((names, grid)) or nothing)
    monkeypatch.setattr(film, "draw", lambda cfg, film, target, every: asked.append((target, every)) or target)
    return asked


def test_a_film_never_replaces_another_unasked(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["play", "task=Cartpole"]) == 0
    (tmp_path / "Cartpole.mp4").write_bytes(b"x")
    assert cli.main(["play", "task=Cartpole"]) == 0
    assert [str(target) for target, _ in quick[1::2]] == ["Cartpole.mp4", "Cartpole_2.mp4"]
    said = capsys.readouterr().out
    assert said.count("Cartpole/checkpoints/best.pt (the highest mean task return of 100 training episodes") == 2
    assert cli.main(["play", "task=Cartpole", "out=Cartpole.mp4"]) == 2
    assert "Cartpole.mp4 is there already" in capsys.readouterr().err
    assert cli.main(["play", "task=Cartpole", "out=Cartpole.mp4", "overwrite=true", "every=3"]) == 0
    assert (str(quick[-1][0]), quick[-1][1]) == ("Cartpole.mp4", 3)


def test_policies_are_chosen_by_name_or_by_what_they_maximise(tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for policy, names in (("pi", ["pi"]), ("heuristic", ["pi_h"]), ("pi_h", ["pi_h"]), ("both", ["pi", "pi_h"])):
        assert cli.main(["play", "task=Cartpole", "policy=" + policy, "grid=4"]) == 0
        assert quick[-2] == (names, 4)
    assert cli.main(["play", "task=Cartpole", "run=random"]) == 0
    assert quick[-2][0] == ["random"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "needs run=<run folder or checkpoint>"),
        (["Cartpole"], "takes key=value, got 'Cartpole'"),
        (["task=Cartpole", "task=Ant"], "expected each setting once"),
        (["task=Cartpole", "episodes=0"], "episodes must be a whole number from 1 to 1024"),
        (["task=Cartpole", "episodes=1e9"], "episodes must be a whole number"),
        (["task=Cartpole", "grid=99"], "grid must be a whole number from 1 to 36"),
        (["task=Cartpole", "every=-1"], "every must be a whole number"),
        (["task=Cartpole", "policy=pi_x"], "unknown policy of algo=hepo 'pi_x'"),
        (["task=Ant", "policy=both"], "needs a method with two policies"),
        (["task=Cartpole", "out=film.avi"], "ends in one of .mp4, .gif, .png"),
        (["task=Cartpole", "out=nowhere/film.mp4"], "there is no folder nowhere"),
        (["task=Cartpole", "overwrite=maybe"], "overwrite must be true or false"),
        (["task=AllegroHand"], "AllegroHand"),
        (["run=nowhere"], "no such file or run folder"),
    ],
)
def test_what_cannot_be_played_is_said_in_a_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["play", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert not list(tmp_path.iterdir())


# ---- progress ----------------------------------------------------------------------------------------------------


def test_what_takes_long_says_how_far_it_is(monkeypatch):
    """Nothing within five seconds; then a line with the time that is left."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Steps("rendering", 200, "frames", out) as progress:
        now[0] += steps.FIRST_S - 0.1
        progress.at(50)
        assert out.getvalue() == ""
        now[0] = 120.0
        progress.at(50)
        assert out.getvalue() == "rendering: 50 of 200 frames, ETA 1:00\n"
        now[0] += 1.0
        progress.at(60)
        assert out.getvalue().count("\n") == 1
        now[0] += steps.EVERY_S
        progress.at(100)
        assert out.getvalue().count("\n") == 2


def test_an_evaluation_says_how_far_it_is(monkeypatch, capfd):
    monkeypatch.setattr(steps, "FIRST_S", 0.0)
    monkeypatch.setattr(steps, "EVERY_S", 0.0)
    arguments = ["task=Push2D", "run=random", "task.episode_length=3", "episodes=4"]
    assert cli.main(["eval", *arguments]) == 0
    said = capfd.readouterr().err
    assert "playing random: 3 of 3 steps, ETA 0:00" in said


def test_the_evaluation_after_a_training_says_how_far_it_is(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(steps, "FIRST_S", 0.0)
    monkeypatch.setattr(steps, "EVERY_S", 0.0)
    small = ["num_envs=8", "train.horizon_length=8", "train.minibatch_size=32", "train.max_iterations=1"]
    quiet = ["plot=false", "tensorboard=false", "train.fused=false", "run_root=%s" % tmp_path]
    settings = ["task.episode_length=5", "evaluation_episodes=6", *small, *quiet]
    assert cli.main(["train", "task=Push2D", "algo=hepo", *settings]) == 0
    assert "evaluating: 10 of 10 steps, ETA 0:00" in capfd.readouterr().err  # 4 envs a policy, 2 episodes each
    assert cli.main(["train", "task=Push2D", "algo=hepo", "seeds=2", *settings]) == 0
    assert "evaluating: 10 of 10 steps, ETA 0:00" in capfd.readouterr().err
    given = {key: yaml.safe_load(value) for key, _, value in (s.partition("=") for s in settings)}
    train("Push2D", num_envs=given.pop("num_envs"), quiet=True, settings=given)
    assert "evaluating" not in capfd.readouterr().err
