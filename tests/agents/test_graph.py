"""Capturing the update, on a stand-in for torch's CUDA streams and graphs: what happens where a capture fails."""

from __future__ import annotations

import gc

import pytest
import torch

from hepo_isaac.agents.graph import CapturedStep

DEVICE = torch.device("cuda", 1)


class FakeStream:
    def __init__(self, device=None):
        self.device = device

    def wait_stream(self, other):
        pass


class FakeCuda:
    """Streams and graphs of torch.cuda. Like torch's, a graph's context stays on its stream if ending it raises."""

    def __init__(self):
        self.current = self.first = FakeStream(DEVICE)
        self.collects = []
        self.streams = []
        self.replays = 0

    def install(self, monkeypatch):
        cuda = self

        class Scope:
            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                self.before, cuda.current = cuda.current, self.stream

            def __exit__(self, *error):
                cuda.current = self.before

        class Capture(Scope):
            def __init__(self, graph, stream, capture_error_mode):
                super().__init__(stream)
                cuda.streams.append(stream)

            def __enter__(self):
                super().__enter__()
                cuda.collects.append(gc.isenabled())

            def __exit__(self, kind, error, trace):
                if error is not None:
                    raise RuntimeError("operation failed due to a previous error during capture")
                super().__exit__(kind, error, trace)

        class Graph:
            def replay(self):
                cuda.replays += 1

        for name, value in {
            "Stream": FakeStream,
            "stream": Scope,
            "graph": Capture,
            "CUDAGraph": Graph,
            "current_stream": lambda device=None: cuda.current,
            "set_stream": lambda stream: setattr(cuda, "current", stream),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


def refused_once_captured(cuda):
    def step(x):
        if cuda.current in cuda.streams:
            raise ValueError("operation not permitted when stream is capturing\nmore")
        return 2.0 * x

    return step


def test_a_capture_that_fails_goes_on_eagerly_and_says_why(cuda):
    step = CapturedStep(refused_once_captured(cuda), True, DEVICE)
    results = [float(step(torch.tensor(float(k)))) for k in range(6)]
    assert results == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert step.why_eager == "capture failed: ValueError: operation not permitted when stream is capturing"
    assert "refused_once_captured" in step.failure or "raise ValueError" in step.failure
    assert "previous error during capture" in step.failure
    assert len(cuda.streams) == 1  # it is not tried again
    assert cuda.replays == 0


def test_a_capture_that_fails_gives_the_stream_back(cuda):
    step = CapturedStep(refused_once_captured(cuda), True, DEVICE)
    for _ in range(4):
        step(torch.zeros(()))
        assert cuda.current is cuda.first


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_during_a_capture(cuda, collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        step = CapturedStep(lambda x: 2.0 * x, True, DEVICE)
        for _ in range(4):
            step(torch.zeros(()))
        assert cuda.collects == [False]
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_the_capture_is_on_the_steps_own_device(cuda):
    step = CapturedStep(lambda x: 2.0 * x, True, DEVICE)
    for _ in range(5):
        step(torch.zeros(()))
    assert [stream.device for stream in cuda.streams] == [DEVICE]
    assert cuda.replays == 2
    assert (step.why_eager, step.failure) == ("", "")


def test_an_error_of_the_step_itself_is_raised(cuda):
    """A capture hides it; the eager step that follows must not."""

    def broken(x):
        calls.append(1)
        if len(calls) > 3:
            raise KeyError("a mistake")
        return x

    calls = []
    step = CapturedStep(broken, True, DEVICE)
    for _ in range(3):
        step(torch.zeros(()))
    with pytest.raises(KeyError, match="a mistake"):
        step(torch.zeros(()))


def test_off_and_on_the_cpu_the_function_is_called():
    for step in (CapturedStep(torch.neg, False, DEVICE), CapturedStep(torch.neg, True, torch.device("cpu"))):
        assert float(step(torch.ones(()))) == -1.0
        assert step.why_eager
        assert step.failure == ""
