"""hepo-isaac view: what is shown and what is clicked; slow, in a real browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac import cli
from hepo_isaac.envs.make import make_env
from hepo_isaac.locate import robot_tasks
from hepo_isaac.overrides import compose
from hepo_isaac.runs import launch
from hepo_isaac.runs.view.geometry import BodyMeshes, places
from hepo_isaac.runs.view.page import Page, bars, said
from hepo_isaac.runs.view.show import RANDOM, SLIDERS, ZERO, Checkpoints, Show
from tests.tasks.sampled import CHOSEN, sampled

ROOT = Path(__file__).resolve().parents[2]


def environment(task="Cartpole", envs=3, *more):
    given = ["task=" + task, "num_envs=%d" % envs, "train.minibatch_size=%d" % (2 * envs), "sim.threads=1", *more]
    given += ["algo=ppo_h", "device=cpu"]
    return make_env(launch.prepare(compose(given), given), random_start=False)


# ---- geometry ----------------------------------------------------------------------------------------------------

SCENE = """<mujoco>
  <asset><material name="red" rgba="1 0 0 1"/></asset>
  <worldbody>
    <geom type="plane" size="5 5 .1" pos="0 0 -0.5"/>
    <body name="arm" pos="1 2 3">
      <freejoint/>
      <geom type="box" size=".1 .2 .3" pos=".5 0 0" material="red"/>
      <geom type="sphere" size=".25" group="3"/>
      <body name="hand" pos="0 0 1"><joint axis="0 1 0"/><geom type="capsule" size=".1 .4" rgba="0 1 0 1"/></body>
    </body>
    <body name="goal" mocap="true"><geom type="cylinder" size=".1 .2"/></body>
  </worldbody>
</mujoco>"""


def test_bodies_have_their_visible_geoms_where_and_as_large_as_they_are():
    shown = BodyMeshes(SCENE)
    arm, hand, goal = (mujoco.mj_name2id(shown.model, mujoco.mjtObj.mjOBJ_BODY, n) for n in ("arm", "hand", "goal"))
    assert shown.bodies == [arm, hand, goal] and shown.floor == -0.5
    np.testing.assert_allclose(shown.meshes[arm].bounds, [[0.4, -0.2, -0.3], [0.6, 0.2, 0.3]], atol=1e-6)  # no sphere
    np.testing.assert_allclose(shown.meshes[hand].bounds[1], [0.1, 0.1, 0.5], atol=0.01)
    np.testing.assert_allclose(shown.meshes[goal].bounds[1], [0.1, 0.1, 0.2], atol=0.01)
    assert tuple(shown.meshes[arm].visual.vertex_colors[0]) == (255, 0, 0, 255)


def test_bodies_are_where_kinematics_says():
    shown = BodyMeshes(SCENE)
    half = np.sqrt(0.5)
    qpos = np.array([0.0, 0.0, 2.0, half, 0.0, 0.0, half, np.pi / 2])  # a quarter turn about z; the hand bent
    marker = np.array([[7.0, 8.0, 9.0, 0.0, 0.0, 1.0, 0.0]])  # half a turn about z, xyzw
    where, turned = shown.poses(qpos, marker)
    np.testing.assert_allclose(where, [[0, 0, 2], [0, 0, 3], [7, 8, 9]], atol=1e-12)
    np.testing.assert_allclose(turned[0], [half, 0, 0, half], atol=1e-12)
    np.testing.assert_allclose(turned[2], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(shown.place_of("hand"), [0, 0, 3], atol=1e-12)


def test_robots_stand_apart_around_the_origin():
    for count in (1, 2, 5, 9):
        spots = places(count, 2.0)
        assert spots.shape == (count, 3) and np.allclose(spots.mean(0), 0.0)
        apart = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + 1e9 * np.eye(count)
        assert apart.min() >= 2.0 - 1e-9


@pytest.mark.parametrize("task", sampled(robot_tasks(["all"]), CHOSEN[:1]))
def test_every_robot_task_has_bodies_to_show(task):
    env = environment(task, 1)
    shown = BodyMeshes(env.sim.scene.spec_text)
    state = env.render_state(0)
    where, _ = shown.poses(state["qpos"].numpy(), state["markers"].numpy())
    assert len(shown.bodies) >= 2 and np.isfinite(where).all()
    assert all(len(mesh.faces) > 0 for mesh in shown.meshes.values())
    env.close()


# ---- the show ----------------------------------------------------------------------------------------------------


def test_whoever_is_chosen_acts_and_episodes_are_added_up():
    env = environment("Cartpole", 3, "task.episode_length=4")
    seen = []
    apply = env.task.apply
    env.task.apply = lambda actions: (seen.append(actions.clone()), apply(actions))
    show = Show(env, {"pi": lambda obs: torch.full((3, 1), 0.25), "pi_h": lambda obs: torch.full((3, 1), -0.5)})
    assert show.choices() == ["pi", "pi_h", RANDOM, ZERO, SLIDERS] and show.policy == "pi"
    show.step()
    show.policy = "pi_h"
    show.step()
    show.policy, show.sliders[0] = SLIDERS, 0.75
    show.step()
    show.policy = ZERO
    task, rewards = [], show.rewards
    show.step()
    assert [float(a[0]) for a in seen] == [0.25, -0.5, 0.75, 0.0]
    assert rewards.keys() >= {"r", "h"} and len(show.episodes) == 3
    policy, j, h, length = show.episodes[0]
    assert (policy, length) == (ZERO, 4)
    show.policy = RANDOM
    show.restart()
    for _ in range(4):
        show.step()
        task.append(show.rewards["r"])
    assert sum(e[1] for e in list(show.episodes)[3:]) / 3 == pytest.approx(sum(task), rel=1e-5)
    assert seen[4].min() < seen[4].max()


def test_other_weights_leave_the_choice_alone():
    env = environment()
    show = Show(env, {"pi": lambda obs: torch.zeros(3, 1)})
    show.policy = RANDOM
    show.replace({"pi": lambda obs: torch.ones(3, 1)})
    assert show.policy == RANDOM
    show.policy = "pi"
    show.replace({"other": lambda obs: torch.ones(3, 1)})
    assert show.policy == "other"


def test_checkpoints_are_found_while_a_training_writes_them(tmp_path):
    found = Checkpoints(tmp_path)
    assert found.names() == ["newest"] and found.file("newest") is None and found.stamp("newest") == ("", 0)
    for age, name in ((30, "best.pt"), (20, "iteration_10.pt"), (10, "last.pt"), (5, "failed.pt")):
        (tmp_path / name).write_bytes(b"x")
        past = time.time() - age
        import os

        os.utime(tmp_path / name, (past, past))
    assert found.names() == ["newest", "last.pt", "iteration_10.pt", "best.pt"]
    assert found.file("newest") == tmp_path / "last.pt"
    before = found.stamp("newest")
    os.utime(tmp_path / "iteration_10.pt")
    assert found.stamp("newest") != before and found.file("newest").name == "iteration_10.pt"
    assert found.file("iteration_99.pt") is None


# ---- the page ----------------------------------------------------------------------------------------------------


class Handle:
    """A widget or a thing of the scene: what it is set to, and what listens to it."""

    def __init__(self, **values):
        self.__dict__.update(values)
        self.listeners = []

    def on_click(self, function):
        self.listeners.append(function)

    on_update = on_click

    def change(self, value=None):
        self.value = value
        for function in self.listeners:
            function(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


class Recording:
    """What viser's scene and gui are asked for, by kind and name."""

    def __init__(self):
        self.made = {}

    def __getattr__(self, name):
        if not name.startswith("add_"):
            return lambda *args, **kwargs: None

        def add(*args, **kwargs):
            label = args[0] if args and isinstance(args[0], str) else name
            handle = Handle(
                kind=name,
                args=args,
                value=kwargs.get("initial_value"),
                content="",
                options=(),
                **{k: v for k, v in kwargs.items() if k not in ("value", "content", "options")},
            )
            if name == "add_dropdown":
                handle.options = tuple(args[1])
            self.made[label] = handle
            return handle

        return add


class Server:
    def __init__(self):
        self.scene, self.gui, self.initial_camera = Recording(), Recording(), Handle()

    def atomic(self):
        return Handle()


@pytest.fixture
def page():
    pytest.importorskip("viser", reason="the viewer's package is not installed: pip install 'hepo-isaac[viewer]'")
    env = environment("Cartpole", 2)
    show = Show(env, {"pi": lambda obs: torch.zeros(2, 1), "pi_h": lambda obs: torch.ones(2, 1)})
    server = Server()
    return server, show, Page(server, show, "Cartpole / hepo", {"distance": 3.0}, actions=["slider_to_cart"])


def test_a_click_counts_between_two_steps(page):
    server, show, page = page
    made = server.gui.made
    page.run(0.05)
    assert show.steps > 0 and page.playing
    made["pause"].change()
    page.run(0.02)
    stood = show.steps
    page.run(0.05)
    assert not page.playing and show.steps == stood and made["pause"].label == "play"
    made["step"].change()
    page.run(0.02)
    assert show.steps == stood + 1 and not page.playing
    made["policy"].change("π_H")
    made["slider_to_cart"].change(0.5)
    made["start anew"].change()
    page.run(0.02)
    assert show.policy == "pi_h" and float(show.sliders[0]) == 0.5


def test_bodies_move_with_their_robots(page):
    server, show, page = page
    bodies = {k: v for k, v in server.scene.made.items() if k.startswith("/robots/")}
    before = {k: np.array(v.batched_positions) for k, v in bodies.items()}
    spacing = np.linalg.norm(np.diff(next(iter(before.values())), axis=0))
    assert spacing > 1.0  # two robots, apart
    show.policy = "pi_h"
    for _ in range(10):
        page.single()
    moved = max(np.abs(np.array(v.batched_positions) - before[k]).max() for k, v in bodies.items())
    assert moved > 0.01


def test_a_new_checkpoint_of_a_running_training_is_taken(tmp_path):
    pytest.importorskip("viser", reason="the viewer's package is not installed: pip install 'hepo-isaac[viewer]'")
    env, loaded = environment("Cartpole", 1), []
    (tmp_path / "last.pt").write_bytes(b"x")
    show, server = Show(env, {"pi": lambda obs: torch.zeros(1, 1)}), Server()

    def load(name):
        loaded.append(name)
        if len(loaded) == 2:
            raise ValueError("half a <file>")
        return {"pi": lambda obs: torch.ones(1, 1)}

    page = Page(server, show, "Cartpole", {}, Checkpoints(tmp_path), load)
    page._looked = 0.0
    page._look()
    assert loaded == []  # nothing has changed
    (tmp_path / "iteration_5.pt").write_bytes(b"x")
    page._looked = 0.0
    page._look()
    assert loaded == ["newest"] and "iteration_5.pt" in server.gui.made["checkpoint"].options
    server.gui.made["checkpoint"].change("iteration_5.pt")
    page._fulfil()
    assert loaded == ["newest", "iteration_5.pt"] and "half a &lt;file&gt;" in page._said.content


def test_bars_are_as_long_as_their_numbers():
    page = bars({"r": 0.5, "<b>": -1.0}, {"r": 1.0, "<b>": 2.0})
    assert "left:50.0%;width:25.0%" in page and "left:25.0%;width:25.0%" in page
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "no step" in bars({}, {})
    assert said([], "pi") == "no episode of π has ended yet"
    episodes = [("pi", 1.0, 2.0, 3), ("pi", 3.0, 4.0, 5), ("random", 9.0, 9.0, 9)]
    assert said(episodes, "pi").startswith("2 episodes of π: J 2, H 3")


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "needs run=<run folder or checkpoint>"),
        (["run"], "takes key=value, got 'run'"),
        (["run=nowhere"], "no such file or run folder"),
        (["task=Ant", "run=random", "robots=0"], "robots must be a whole number from 1 to 256, got '0'"),
        (["task=Ant", "run=random", "robots=1e3"], "robots must be a whole number"),
        (["task=Ant", "run=random", "port=99999"], "port must be a whole number from 1 to 65535"),
        (["task=Ant", "run=random", "nosuchkey=1"], "nosuchkey"),
        (["task=Push2D", "run=random"], "has no bodies to show"),
        (["task=Antt", "run=random"], "did you mean 'Ant'"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["view", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_said(capsys, tmp_path, monkeypatch):
    pytest.importorskip("viser", reason="the viewer's package is not installed: pip install 'hepo-isaac[viewer]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["view", "task=Cartpole", "run=random", "port=%d" % port]) == 2
    assert "cannot serve on host=127.0.0.1 port=%d" % port in capsys.readouterr().err


def test_without_viser_the_command_to_install_it_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert cli.main(["view", "task=Cartpole", "run=random"]) == 2
    assert "pip install 'hepo-isaac[viewer]'" in capsys.readouterr().err


# ---- in a browser ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt install chromium chromium-driver")
def test_the_page_opens_shows_robots_and_pauses_in_a_browser(tmp_path):
    """Chromium without a screen, drawing by software: the canvas has a picture, bars have numbers, a click pauses."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hepo_isaac.cli", "view", "task=Ant", "run=random", "port=%d" % port]
    viewer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "use-gl=angle", "use-angle=swiftshader", "enable-unsafe-swiftshader"):
        options.add_argument("--" + flag)
    options.add_argument("--window-size=1280,800")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = None
    try:
        assert any("open http://" in line for line in iter(viewer.stdout.readline, ""))
        browser = webdriver.Chrome(options, service)
        browser.get("http://127.0.0.1:%d" % port)
        wait = WebDriverWait(browser, 60)
        wait.until(lambda b: "progress" in b.page_source and "step" in b.page_source)
        time.sleep(3.0)
        picture = canvas(browser, tmp_path)
        assert picture.std() > 10.0 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
        wait.until(lambda b: [x for x in b.find_elements(By.TAG_NAME, "button") if x.text == "pause"])[0].click()
        wait.until(lambda b: [x for x in b.find_elements(By.TAG_NAME, "button") if x.text == "play"])
        time.sleep(1.0)
        first = canvas(browser, tmp_path)
        time.sleep(1.0)
        assert np.abs(canvas(browser, tmp_path).astype(float) - first).mean() < 0.5  # stands still
        [x for x in browser.find_elements(By.TAG_NAME, "button") if x.text == "play"][0].click()
        time.sleep(2.0)
        assert np.abs(canvas(browser, tmp_path).astype(float) - first).mean() > 0.5  # and goes on
    finally:
        if browser is not None:
            browser.quit()
        viewer.terminate()
        viewer.wait(timeout=30)
        viewer.stdout.close()


def canvas(browser, folder):
    """The left part of the page, where the robots are, (H, W, 3)."""
    from PIL import Image

    file = folder / "page.png"
    browser.save_screenshot(str(file))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").crop((0, 160, 900, 780)))


def test_the_policies_of_a_run_are_those_that_act(tmp_path, monkeypatch):
    """Of a run folder, of one of its checkpoints and of what came along: weights as an evaluation restores them."""
    from hepo_isaac.runs.play.film import actor
    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.view import command

    monkeypatch.chdir(tmp_path)
    small = ["task=Cartpole", "num_envs=8", "train.minibatch_size=64", "train.max_iterations=2", "checkpoint_every=1"]
    assert launch.main([*small, "plot=false", "tensorboard=false", "sim.threads=1", "torch_threads=1"]) == 0
    (run,) = tmp_path.glob("runs/Cartpole/hepo/*")
    obs = torch.randn(3, 4)
    for given, name in (
        (str(run), "newest"),
        (str(run / "checkpoints" / "iteration_000001.pt"), "iteration_000001.pt"),
    ):
        settings, checkpoints = command._settings({"run": given, "sim.threads": "1"}, 3)
        assert settings["num_envs"] == 3 and (checkpoints.given or "newest") == name
        env = make_env(settings, random_start=False)
        players = command._loader(settings, env, checkpoints)(name)
        assert list(players) == ["pi", "pi_h"]
        for policy, act in players.items():
            alone = actor(settings, env, load_checkpoint(checkpoints.file(name)), policy)
            assert torch.equal(act(obs), alone(obs))
        with pytest.raises(Exception, match=r"there is no checkpoint iteration_9\.pt"):
            command._loader(settings, env, checkpoints)("iteration_9.pt")
        env.close()
    settings, checkpoints = command._settings({"task": "Cartpole"}, 2)
    assert settings["algo"]["name"] == "hepo" and checkpoints.file("newest") is not None
