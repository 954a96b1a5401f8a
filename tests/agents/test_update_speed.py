"""The compiled gradient step stays as much faster than the eager one as it was: CPU time of this thread alone, in
turns, the least of each, so that a busy machine slows both sides."""

from __future__ import annotations

import time
from typing import Dict

import pytest
import torch

from hepo_isaac.agents.fused import FusedStep, library
from hepo_isaac.studies.update_step import CASES, learner, rows

# Measured on an EPYC with AVX-512: 1.70 to 1.85 on FrankaCabinet (docs/performance.md), to 1.95 beside two trainings,
# whose use of the caches hurts the eager side more; 1.56 with AVX2. So a slowdown of 30 % is found on an idle machine
# (1.70 / 1.3 = 1.31), one of a half also beside them.
LEAST_RATIO = {16: 1.45, 8: 1.25}
TURNS = 4


def ratio() -> float:
    """Least CPU time of an eager update over the least of a compiled one."""
    case = CASES[0]
    torch.manual_seed(0)
    pair = {fused: learner(case, fused) for fused in (False, True)}
    batch = rows(pair[True], case[3], case[5])
    least: Dict[bool, float] = {False: float("inf"), True: float("inf")}
    for _ in range(TURNS):
        for fused, one in pair.items():
            began = time.thread_time()
            one.update(batch)
            least[fused] = min(least[fused], time.thread_time() - began)
    return least[False] / least[True]


def bound() -> float:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return LEAST_RATIO[16 if "avx512f" in file.read() else 8]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


needs_it = pytest.mark.skipif(library()[0] is None, reason="no compiled step here: %s" % library()[1])


@needs_it
def test_the_compiled_step_is_faster_by_the_recorded_margin() -> None:
    assert ratio() >= bound()


@needs_it
def test_a_slowdown_by_half_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    step = FusedStep.__call__

    def slower(self, *args):
        began = time.thread_time()
        result = step(self, *args)
        end = began + 1.5 * (time.thread_time() - began)
        while time.thread_time() < end:
            pass
        return result

    monkeypatch.setattr(FusedStep, "__call__", slower)
    assert ratio() < bound()
