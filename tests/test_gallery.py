"""The pictures of the small tasks in docs/tasks.md: every task has one, and what is written out there is the task's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepo_isaac.locate import robot_tasks, task_names, tasks_module
from hepo_isaac.runs.play.film import played
from hepo_isaac.runs.play.given import shown
from hepo_isaac.runs.play.recording import Episode
from hepo_isaac.studies import gallery

pytest.importorskip("matplotlib")


def axes():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=gallery.INCHES)
    FigureCanvasAgg(figure)
    return figure.subplots()


def test_there_is_a_picture_for_every_small_task():
    assert set(gallery.PICTURES) == set(task_names()) - set(robot_tasks())


@pytest.mark.parametrize("task", sorted(gallery.PICTURES))
def test_two_episodes_of_it_are_drawn(task):
    what = shown("play", {"task": task, "run": "random"}, 2)
    ways = list(zip(played(what.settings, None, ["random"], 2, say=False).episodes, (gallery.RED, gallery.BLUE)))
    drawn = axes()
    gallery.PICTURES[task](drawn, ways)
    drawn.figure.canvas.draw()
    colours = [line.get_color() for line in drawn.get_lines()]
    assert gallery.RED in colours and gallery.BLUE in colours


@pytest.mark.parametrize("x", [-4.0, 0.5, 1.0, 3.0])
def test_where_a_step_ended_follows_from_its_rewards(x):
    episode = Episode("pi", 1, -((x - 1.0) ** 2), -((x - 3.0) ** 2), None, [], np.zeros((1, 2)))
    assert gallery._point(episode) == pytest.approx(x)


def test_the_landscape_is_that_of_two_peaks():
    x = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    expected = tasks_module("suite.two_peaks").landscape(x)
    np.testing.assert_allclose(gallery._peaks(x.numpy()), expected.numpy(), atol=1e-12)


def test_places_are_those_of_the_tasks():
    key, maze, push = (tasks_module("suite." + name) for name in ("key_door", "maze2d", "push2d"))
    reach = tasks_module("suite.effort_reach")
    assert (key.KEY, key.DOOR, key.RADIUS) == ((-0.7, 0.7), (0.7, -0.7), 0.15)
    assert (maze.GOAL, maze.RADIUS, reach.RADIUS, push.HANDLE_X) == (0.7, 0.3, 0.15, 0.7)
