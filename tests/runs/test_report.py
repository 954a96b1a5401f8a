"""Plots, evaluation and video."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.errors import UserError
from hepo_isaac.runs.play.evaluate import EvaluationResult, evaluation_rows, summarise
from hepo_isaac.runs.play.video import render_trajectory
from hepo_isaac.runs.record.metrics_csv import MetricsCsv, read_metrics
from hepo_isaac.runs.record.plots import band, plot_run, plot_runs, smooth, third_panel

PENDULUM = """<mujoco><worldbody><light pos="0 0 3"/><camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0 1"/>
<body pos="0 0 1"><joint type="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 -.8" size=".08"
rgba="1 0 0 1"/></body></worldbody></mujoco>"""


def record(path, fake, iterations=30, scale=1.0, **options):
    path.mkdir(parents=True)
    agent = fake.FakeAgent(iterations, **options)
    sink = MetricsCsv(path / "metrics.csv")
    for _ in range(iterations):
        found = agent.step()
        sink.write({k: v * scale if k.startswith("return") else v for k, v in found.items()})
    sink.close()
    return path


def test_smooth_is_what_the_display_showed(tmp_path, fake):
    columns = read_metrics(record(tmp_path / "a", fake) / "metrics.csv")
    values = smooth(columns, "return_task/pi")
    assert math.isnan(values[0])
    assert values[1] == pytest.approx(0.02)
    assert values[3] == pytest.approx(0.03)


def test_band_is_mean_and_range_where_all_seeds_have_data(tmp_path, fake):
    group = [read_metrics(record(tmp_path / str(s), fake, 20 + s, s) / "metrics.csv") for s in (1, 2, 6)]
    steps, mean, low, high = band(group, "return_task/pi")
    assert (steps[0], steps[-1]) == (2 * fake.STEPS, 21 * fake.STEPS)
    assert mean[-1] == pytest.approx(low[-1] * 3, rel=0.05)
    assert high[-1] == pytest.approx(low[-1] * 6, rel=0.05)
    assert band(group, "not/recorded") is None


def test_third_panel(tmp_path, fake):
    columns = read_metrics(record(tmp_path / "a", fake) / "metrics.csv")
    assert third_panel(columns) == "alpha"
    columns["alpha"][:] = math.nan
    assert third_panel(columns) == "episode/drawer_open/pi"
    assert third_panel({"env_steps": columns["env_steps"]}) is None


def test_plots_are_drawn(tmp_path, fake):
    import imageio.v2 as imageio

    runs = {"one": [record(tmp_path / "a", fake)], "two": [record(tmp_path / "b", fake, policies=("pi",))]}
    for out in (plot_run(runs["one"][0]), plot_runs(runs, tmp_path / "all.png", "both")):
        picture = imageio.imread(out)
        assert picture.shape[1] > 1200
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100


def test_an_empty_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing recorded"):
        plot_run(tmp_path)


def test_summarise_by_hand():
    found = summarise(
        {"pi": [1.0, 2.0, 3.0, 6.0], "pi_h": torch.tensor([5.0])},
        {"pi": np.zeros(4), "pi_h": [1.0]},
        {"pi": [10, 10, 10, 10], "pi_h": [7]},
        {"pi": {"drawer_open": [True, False, True, True]}},
    )
    # variance (4 + 1 + 0 + 9) / 3, so the standard error is sqrt(14 / 3 / 4)
    assert found["pi"]["returns_task"] == {"mean": 3.0, "std_error": pytest.approx(math.sqrt(14 / 12)), "n": 4}
    assert found["pi"]["metrics"]["drawer_open"]["mean"] == 0.75
    assert math.isnan(found["pi_h"]["returns_task"]["std_error"])
    rows = evaluation_rows(found)
    assert rows[0] == ["returns_task", "3 ± 1.1 (n=4)", "5 (n=1)"]
    assert rows[-1] == ["drawer_open", "0.75 ± 0.25 (n=4)", "–"]


def test_evaluation_of_nothing_and_of_mismatched_episodes():
    assert EvaluationResult.from_episodes("pi", [], [], [], {}).returns_task.n == 0
    with pytest.raises(ValueError, match="episode counts differ"):
        EvaluationResult.from_episodes("pi", [1.0, 2.0], [1.0], [3, 4], {})


# ---- video ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    """Skip where this machine can render with neither library.

    OpenGL comes from the system (libEGL or OSMesa), not from pip, and the default suite must pass without root.
    """
    try:
        render_trajectory(PENDULUM, np.zeros((1, 1)), tmp_path_factory.mktemp("probe") / "a.png", 10, 64, 64)
    except UserError as error:
        if "apt-get install" in str(error):
            pytest.skip(str(error))  # holds as long as no wheel brings OpenGL: the sentence names what to install
        raise


def red(frame):
    """Pixels of the pendulum and their mean column."""
    mask = (frame[..., 0] > 60) & (frame[..., 0] > 2.0 * frame[..., 1].astype(int))
    return mask.sum(), np.nonzero(mask)[1].mean() if mask.any() else math.nan


def test_frames_show_the_motion(tmp_path, backend):
    import imageio.v2 as imageio

    qpos = np.array([[0.0], [1.0], [-1.0]])
    out = render_trajectory(PENDULUM, qpos, tmp_path / "a.gif", 10, 160, 120, camera={"name": "side"})
    frames = [np.asarray(f)[..., :3] for f in imageio.mimread(out)]
    assert len(frames) == 3
    middle, one_side, other_side = [red(f)[1] for f in frames]
    assert abs(middle - 80) < 5
    assert (one_side - 80) * (other_side - 80) < 0
    assert abs(one_side - other_side) > 30


MARKED = """<mujoco><worldbody><light pos="0 0 3"/><body name="cart"><joint type="slide" axis="1 0 0"/>
<geom type="box" size=".1 .1 .1" rgba="0 0 1 1"/></body><body name="goal" mocap="true"><geom size=".2" rgba="1 0 0 1"/>
</body></worldbody></mujoco>"""
SIDE = {"lookat": [0.0, 0.0, 0.0], "distance": 6.0, "azimuth": 90.0, "elevation": 0.0}


def test_markers_go_where_they_are_put_and_a_camera_follows(tmp_path, backend):
    import imageio.v2 as imageio

    qpos = np.array([[0.0], [1.0]])
    markers = np.tile([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0], (2, 1, 1))
    markers[1, 0, 0] = 1.2

    def columns(camera):
        out = render_trajectory(MARKED, qpos, tmp_path / "a.gif", 10, 160, 120, camera=camera, markers=markers)
        return [red(np.asarray(f)[..., :3])[1] for f in imageio.mimread(out)]

    still, follows = columns(SIDE), columns({**SIDE, "follow": "cart"})
    assert abs(still[0] - 80) < 3
    assert still[1] - still[0] > 15
    assert abs(follows[0] - 80) < 3
    assert follows[1] - follows[0] == pytest.approx(0.2 / 1.2 * (still[1] - still[0]), abs=2.0)  # ahead of the cart


def test_a_film_needs_a_pose_for_every_marker(tmp_path, backend):
    with pytest.raises(UserError, match="markers have shape"):
        render_trajectory(MARKED, np.zeros((2, 1)), tmp_path / "a.gif", 10, 64, 64)
    with pytest.raises(UserError, match="no body called 'dog'"):
        render_trajectory(PENDULUM, np.zeros((2, 1)), tmp_path / "a.gif", 10, 64, 64, camera={"follow": "dog"})


def test_film_and_contact_sheet(tmp_path, backend):
    import imageio.v2 as imageio

    qpos = np.linspace(-1, 1, 30)[:, None]
    film = render_trajectory(PENDULUM, qpos, tmp_path / "a.mp4", 30, 161, 121)
    with imageio.get_reader(film) as reader:
        about = reader.get_meta_data()
    assert about["size"] == (160, 120)
    assert about["duration"] == pytest.approx(1.0, abs=0.05)
    sheet = imageio.imread(render_trajectory(PENDULUM, qpos, tmp_path / "a.png", 30, 64, 48))
    assert sheet.shape[:2] == (3 * 52 - 4, 4 * 68 - 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a.png"]


def test_a_broken_backend_falls_through_to_the_next(tmp_path, backend, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # what a desktop user may have set; it needs a display
    monkeypatch.delenv("DISPLAY", raising=False)
    out = render_trajectory(
        PENDULUM, np.zeros((1, 1)), tmp_path / "a.png", 10, 64, 64, backends=["nope", "egl", "osmesa"]
    )
    assert out.is_file()


def test_no_backend_names_the_packages(tmp_path):
    with pytest.raises(UserError, match="apt-get install libegl1.*libosmesa6"):
        render_trajectory(PENDULUM, np.zeros((1, 1)), tmp_path / "a.png", 10, 64, 64, backends=["nope"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("xml", "qpos", "name", "camera", "words"),
    [
        (PENDULUM, np.zeros(3), "a.mp4", None, "shape"),
        (PENDULUM, np.zeros((0, 1)), "a.mp4", None, "shape"),
        (PENDULUM, np.full((2, 1), np.nan), "a.mp4", None, "NaN"),
        (PENDULUM, np.zeros((2, 1)), "a.avi", None, ".mp4"),
        (PENDULUM, np.zeros((2, 1)), "no/a.mp4", None, "no folder"),
        (PENDULUM, np.zeros((2, 5)), "a.mp4", None, "nq = 1"),
        ("<mujoco><nonsense/></mujoco>", np.zeros((2, 1)), "a.mp4", None, "does not compile"),
        (PENDULUM, np.zeros((2, 1)), "a.mp4", {"name": "top"}, "no camera called 'top'"),
        (PENDULUM, np.zeros((2, 1)), "a.mp4", {"zoom": 1}, "camera setting zoom"),
    ],
)
def test_bad_input_is_named(tmp_path, xml, qpos, name, camera, words):
    with pytest.raises(UserError) as caught:
        render_trajectory(xml, qpos, tmp_path / name, 10, 64, 64, camera=camera)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
