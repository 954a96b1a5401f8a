"""Settings of the whole test suite: slow tests are opt-in, every process keeps to one torch thread."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections.abc import Iterator

import pytest

# Before torch is imported, and inherited by subprocesses: tests run side by side on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Runs are signed with the account's key (hepo_isaac/runs/record/stored.py): tests have an account of their own.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="hepo-isaac-tests-")
# A shell that starts the tests in the background ignores Ctrl-C for them, nohup a hangup, and a run respects that: no
# test of such a signal would end.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow") or "slow" in config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session", autouse=True)
def settings_are_composed_once() -> Iterator[None]:
    """Hydra composes a job's settings two or three times, a tenth of a second each: to see whether they make a sweep of
    it (``hydra.mode``), whatever is wrong with them then; to see whether a sweep's jobs are legal; to run it. Here it
    does so once for the same settings in the same folder. In processes of their own it does as ever."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.hydra import Hydra

    from hepo_isaac import plugins

    kept: dict[str, bytes] = {}
    asked, load = Hydra.get_mode, ConfigLoaderImpl.load_configuration

    def mode(hydra: Hydra, config_name: str, overrides: list[str]) -> object:
        return asked(hydra, config_name, overrides) if "hydra.mode" in str(overrides) else None

    def load_configuration(self: ConfigLoaderImpl, *args: object, **options: object) -> object:
        if plugins.plugins():  # whose files change
            return load(self, *args, **options)
        places = [place.path for place in self.config_search_path.get_path()]
        key = repr((os.getcwd(), places, args, sorted(options.items())))
        if key not in kept:
            kept[key] = pickle.dumps(load(self, *args, **options))
        return pickle.loads(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", mode)
        patch.setattr(ConfigLoaderImpl, "load_configuration", load_configuration)
        yield
