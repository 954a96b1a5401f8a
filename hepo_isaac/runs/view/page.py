"""The page in the browser: robots, knobs, bars and curves, on viser."""

from __future__ import annotations

import threading
import time
from html import escape
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch

from hepo_isaac.runs.view.geometry import BodyMeshes, places
from hepo_isaac.runs.view.show import SLIDERS, Checkpoints, Show

LABELS = {"pi": "π", "pi_h": "π_H", "pi_j": "π_J"}
REFRESH_S = 0.1  # of bars and numbers
LOOK_S = 2.0  # between looks at which checkpoints there are
SLOWEST, FASTEST = 0.1, 4.0  # times real time


class Page:
    """Shows a Show and hands it what is clicked. Callbacks of viser run in threads of its own, so that they only leave
    wishes, which ``run`` fulfils between two steps.

    Args:
        server: a viser.ViserServer.  title: above the knobs.  follow: a body that the robots are centred on, or None.
        checkpoints: of the run that is shown, or None.  load: from a checkpoint's name to players.
        actions: a name for each action.
    """

    def __init__(
        self,
        server: Any,
        show: Show,
        title: str,
        camera: Optional[Mapping[str, Any]] = None,
        checkpoints: Optional[Checkpoints] = None,
        load: Optional[Callable[[str], Mapping[str, Any]]] = None,
        actions: Optional[List[str]] = None,
    ) -> None:
        self._server, self._show, self._checkpoints, self._load = server, show, checkpoints, load
        self.playing = True
        self._wishes: List[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._speed = 1.0
        self._chosen, self._stamp = Checkpoints.NEWEST, ("", 0)
        if checkpoints is not None:
            self._chosen = checkpoints.given or Checkpoints.NEWEST
            self._stamp = checkpoints.stamp(self._chosen)
        self._looked = time.monotonic()
        self._refreshed = 0.0
        self._smooth: Dict[str, float] = {}
        self._largest: Dict[str, float] = {}
        self._stopped = False
        self._follow = (camera or {}).get("follow")
        self._scene(camera or {})
        self._knobs(title, actions or ["action %d" % k for k in range(show.env.num_actions)])

    # ---- the scene ----------------------------------------------------------------------------------------------

    def _scene(self, camera: Mapping[str, Any]) -> None:
        env, scene = self._show.env, self._server.scene
        self._bodies = BodyMeshes(env.sim.scene.spec_text)
        spacing = 1.1 * (2.0 * float(camera.get("distance", 2.0 * self._bodies.extent)) / 3.0)
        self._places = places(env.num_envs, spacing)
        scene.set_up_direction("+z")
        width = spacing * (np.sqrt(env.num_envs) + 3.0)
        floor = self._bodies.floor
        height = 0.0 if floor is None else floor
        scene.add_grid("/floor", width=width, height=width, position=(0.0, 0.0, height), cell_size=spacing / 4.0)
        count = env.num_envs
        still = np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
        self._handles = {
            body: scene.add_batched_meshes_trimesh(
                "/robots/body_%d" % body, mesh, batched_wxyzs=still, batched_positions=self._places
            )
            for body, mesh in self._bodies.meshes.items()
        }
        # A film's camera looks at one robot; this one sees a few more.
        away = float(camera.get("distance", 2.0 * self._bodies.extent)) * (0.55 + 0.35 * np.sqrt(count))
        azimuth, elevation = (
            np.deg2rad(float(camera.get(k, d))) for k, d in (("azimuth", 130.0), ("elevation", -20.0))
        )
        target = np.array(camera.get("lookat", (0.0, 0.0, 0.0)), dtype=float)
        forward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        first = self._server.initial_camera
        first.look_at, first.position = tuple(target), tuple(target - away * forward)
        self.draw()

    def draw(self) -> None:
        """Put every body where it is."""
        env = self._show.env
        positions, turns = [], []
        for index in range(env.num_envs):
            state = env.render_state(index)
            where, turned = self._bodies.poses(state["qpos"].numpy(), state["markers"].numpy())
            if self._follow is not None:
                where = where - self._bodies.place_of(self._follow) * (1.0, 1.0, 0.0)
            positions.append(where + self._places[index])
            turns.append(turned)
        where, turned = np.stack(positions, 1), np.stack(turns, 1)  # (B, N, .)
        with self._server.atomic():
            for row, body in enumerate(self._bodies.bodies):
                handle = self._handles[body]
                handle.batched_positions, handle.batched_wxyzs = where[row], turned[row]

    # ---- the knobs ----------------------------------------------------------------------------------------------

    def _knobs(self, title: str, actions: List[str]) -> None:
        gui, show = self._server.gui, self._show
        gui.add_markdown("**%s**" % escape(title))
        self._play = gui.add_button("pause")
        self._play.on_click(lambda _: self.wish(self.toggle))
        gui.add_button("step").on_click(lambda _: self.wish(self.single))
        gui.add_button("start anew").on_click(lambda _: self.wish(self._anew))
        self._who = gui.add_dropdown(
            "policy", [LABELS.get(n, n) for n in show.choices()], initial_value=LABELS.get(show.policy, show.policy)
        )
        self._who.on_update(lambda _: self.wish(self._swap))
        self._file: Optional[Any] = None
        if self._checkpoints is not None:
            self._file = gui.add_dropdown("checkpoint", self._checkpoints.names(), initial_value=self._chosen)
            self._file.on_update(lambda _: self.wish(self._choose))
        speed = gui.add_slider("speed × real time", SLOWEST, FASTEST, 0.1, 1.0)
        speed.on_update(lambda _: setattr(self, "_speed", float(speed.value)))
        self._said = gui.add_markdown("")
        with gui.add_folder("reward of a step"):
            self._bars = gui.add_html(bars({}, {}))
        with gui.add_folder("episodes"):
            self._curves = self._plot(gui)
        with gui.add_folder("actions", expand_by_default=False):
            gui.add_markdown("They act where the policy is *%s*." % SLIDERS)
            for index, name in enumerate(actions):
                slider = gui.add_slider(name, -1.0, 1.0, 0.01, 0.0)
                slider.on_update(lambda _, k=index, s=slider: self._slide(k, float(s.value)))

    def _plot(self, gui: Any) -> Any:
        from viser import uplot

        series = (
            uplot.Series(label="episode"),
            uplot.Series(label="J", stroke="#1f77b4", width=2),
            uplot.Series(label="H", stroke="#ff7f0e", width=2, scale="h"),
        )
        scales = {"x": uplot.Scale(time=False, auto=True), "y": uplot.Scale(auto=True), "h": uplot.Scale(auto=True)}
        axes = (uplot.Axis(), uplot.Axis(), uplot.Axis(scale="h", side=1))
        nothing = (np.zeros(1), np.zeros(1), np.zeros(1))
        return gui.add_uplot(nothing, series, scales=scales, axes=axes, aspect=1.6)

    def wish(self, what: Callable[[], None]) -> None:
        """Let ``run`` call ``what`` between two steps."""
        with self._lock:
            self._wishes.append(what)

    def toggle(self) -> None:
        """Pause or play."""
        self.playing = not self.playing
        self._play.label = "pause" if self.playing else "play"

    def single(self) -> None:
        """One step, and stand still."""
        if self.playing:
            self.toggle()
        self._step()

    def _anew(self) -> None:
        self._show.restart()
        self.draw()

    def _swap(self) -> None:
        names = {LABELS.get(n, n): n for n in self._show.choices()}
        self._show.policy = names.get(str(self._who.value), self._show.policy)

    def _slide(self, action: int, value: float) -> None:
        self._show.sliders[action] = value

    def _choose(self) -> None:
        assert self._file is not None
        self._chosen = str(self._file.value)
        self._reload()

    # ---- the loop -----------------------------------------------------------------------------------------------

    def run(self, seconds: float = float("inf")) -> None:
        """Play until stopped, or for ``seconds``."""
        period, due = self._show.env.sim.spec.control_dt, time.monotonic()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopped:
            self._fulfil()
            if self.playing:
                self._step()
            self._look()
            # Where physics is slower than its time the robots are in slow motion, not in leaps.
            due = max(due + period / self._speed, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """End ``run``."""
        self._stopped = True

    def _fulfil(self) -> None:
        with self._lock:
            wishes, self._wishes = self._wishes, []
        for wish in wishes:
            wish()

    def _step(self) -> None:
        self._show.step()
        self.draw()
        for name, value in self._show.rewards.items():
            self._smooth[name] = 0.8 * self._smooth.get(name, value) + 0.2 * value
            self._largest[name] = max(self._largest.get(name, 1e-9), abs(self._smooth[name]))
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._refreshed = time.monotonic()
            self._report()

    def _report(self) -> None:
        self._bars.content = bars(self._smooth, self._largest)
        episodes = list(self._show.episodes)
        self._said.content = "step %d, %s" % (self._show.steps, said(episodes, self._show.policy))
        if episodes:
            numbers = np.arange(1.0, len(episodes) + 1.0)
            self._curves.data = (numbers, *(np.array([e[k] for e in episodes]) for k in (1, 2)))

    def _look(self) -> None:
        """Find new checkpoints, and take the newest where that is what is shown."""
        if self._checkpoints is None or self._file is None or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        names = self._checkpoints.names()
        if tuple(names) != tuple(self._file.options):
            self._file.options = names
        if self._checkpoints.stamp(self._chosen) != self._stamp:
            self._reload()

    def _reload(self) -> None:
        assert self._checkpoints is not None and self._load is not None
        self._stamp = self._checkpoints.stamp(self._chosen)
        try:
            self._show.replace(self._load(self._chosen))
        except Exception as error:  # half a file of a training that is killed now: the next one will do
            self._said.content = "%s: %s" % (self._chosen, escape(str(error)))


def said(episodes: List[Tuple[str, float, float, int]], policy: str) -> str:
    """How the latest episodes of ``policy`` went."""
    mine = [e for e in episodes if e[0] == policy][-50:]
    if not mine:
        return "no episode of %s has ended yet" % LABELS.get(policy, policy)
    mean = torch.tensor([[e[1], e[2], float(e[3])] for e in mine]).mean(0).tolist()
    return "%d episodes of %s: J %.3g, H %.3g, %d steps" % (len(mine), LABELS.get(policy, policy), *mean)


def bars(values: Mapping[str, float], largest: Mapping[str, float]) -> str:
    """A bar for every number, as HTML: to the right what is positive, to the left what is negative, as long as it is
    beside the largest of its name so far."""
    if not values:
        return "<div style='padding:0.5em'>no step yet</div>"
    rows = []
    for name, value in values.items():
        share = 50.0 * min(1.0, abs(value) / max(largest.get(name, 1e-9), 1e-9))
        left = 50.0 if value >= 0 else 50.0 - share
        colour = "#2a9d8f" if value >= 0 else "#e76f51"
        weight = "bold" if name in ("r", "h") else "normal"
        rows.append(
            "<div style='display:flex;align-items:center;font-size:0.75em;font-weight:%s;gap:0.4em'>"
            "<span style='width:7em;overflow:hidden;text-overflow:ellipsis'>%s</span>"
            "<span style='flex:1;height:0.8em;background:#8883;position:relative'>"
            "<span style='position:absolute;left:%.1f%%;width:%.1f%%;height:100%%;background:%s'></span></span>"
            "<span style='width:5em;text-align:right'>%.3g</span></div>"
            % (weight, escape(name), left, share, colour, value)
        )
    return "<div style='padding:0.5em'>%s</div>" % "".join(rows)
