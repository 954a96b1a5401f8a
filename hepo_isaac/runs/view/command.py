"""``hepo-isaac view``: robots in the browser, live."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from hepo_isaac.errors import CheckpointError, UserError
from hepo_isaac.runs.play.given import pairs, shown, whole
from hepo_isaac.sim.engines import CPU_ENGINE, ENGINES

USAGE = "hepo-isaac view run=<run folder or checkpoint> [robots=4] [port=8080] [host=127.0.0.1], or task=… run=random"
ROBOTS, PORT, HOST = 4, 8080, "127.0.0.1"
MOST_ROBOTS = 256


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    given = pairs("view", arguments, USAGE)
    host, port, robots = _address(given)
    settings, checkpoints = _settings(given, robots)
    if not ENGINES[settings["sim"]["name"]].films:
        raise UserError(
            "task=%s on sim=%s has no bodies to show; expected a robot task on sim=%s (hepo-isaac tasks lists them)"
            % (settings["task"]["name"], settings["sim"]["name"], CPU_ENGINE)
        )
    viser = _viser()
    _check_port(host, port)
    return serve(viser, settings, checkpoints, host, port)


def serve(viser: Any, settings: Dict[str, Any], checkpoints: Optional[Any], host: str, port: int) -> int:
    """Build the environments, open the page and run it."""
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.view.page import Page
    from hepo_isaac.runs.view.show import Checkpoints, Show

    task = settings["task"]["name"]
    print("building %d × %s on %s" % (settings["num_envs"], task, settings["sim"]["name"]), flush=True)
    env = make_env(settings, random_start=False)
    try:
        load, players = None, {}
        if checkpoints is not None:
            load = _loader(settings, env, checkpoints)
            players = dict(load(checkpoints.given or Checkpoints.NEWEST))
        show = Show(env, players, int(settings["seed"]))
        with _quiet():
            server = viser.ViserServer(host=host, port=port, label="hepo_isaac: " + task, verbose=False)
        title = "%s / %s" % (task, settings["algo"]["name"]) if players else task
        page = Page(server, show, title, settings["task"].get("camera"), checkpoints, load, _names(env))
        print("open http://%s:%d in a browser; Ctrl-C ends it" % (host, port), flush=True)
        try:
            page.run()
        except KeyboardInterrupt:
            return 0
        finally:
            server.stop()
    finally:
        env.close()
    return 0


def _address(given: Dict[str, str]) -> Tuple[str, int, int]:
    """(host, port, robots), taken out of ``given``."""
    host = given.pop("host", HOST)
    port = whole(given, "port", PORT, 1, 65535)
    return host, port, whole(given, "robots", ROBOTS, 1, MOST_ROBOTS)


def _settings(given: Dict[str, str], robots: int) -> Tuple[Dict[str, Any], Optional[Any]]:
    """(resolved settings, checkpoints to choose from, if a policy is shown)."""
    from hepo_isaac.runs.view.show import Checkpoints

    asked = given.get("run", "")
    settings, _, file = shown("view", given, robots)
    return settings, None if file is None else Checkpoints(file.parent, file.name if Path(asked).is_file() else None)


def _loader(settings: Dict[str, Any], env: Any, checkpoints: Any) -> Callable[[str], Mapping[str, Any]]:
    """From a checkpoint's name to its policies, as functions of observations."""
    from hepo_isaac.methods.method import method_from_config
    from hepo_isaac.runs.play.film import actor
    from hepo_isaac.runs.record.checkpoint import load_checkpoint

    task, algo = settings["task"]["name"], settings["algo"]["name"]

    def load(name: str) -> Mapping[str, Any]:
        file = checkpoints.file(name)
        if file is None:
            raise CheckpointError("there is no checkpoint %s in %s" % (name, checkpoints.folder))
        checkpoint = load_checkpoint(file, task, algo)
        names = method_from_config(settings["algo"]).policy_names
        return {policy: actor(settings, env, checkpoint, policy) for policy in names}

    return load


def _names(env: Any) -> Optional[List[str]]:
    """What each action is called."""
    layout = getattr(env.task, "action_layout", None)
    return None if layout is None else [name for group in layout() for name in group.names]


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise UserError("hepo-isaac view needs viser (%s): pip install 'hepo-isaac[viewer]'" % error) from error
    return viser


def _check_port(host: str, port: int) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                "cannot serve on host=%s port=%d: %s; expected a free port of this machine, e.g. port=%d"
                % (host, port, getattr(error, "strerror", None) or error, port + 1 if port < 65535 else PORT)
            ) from error


@contextlib.contextmanager
def _quiet() -> Any:
    """viser greets with a box of its own."""
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        yield
