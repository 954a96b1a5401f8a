"""A stand-in for the rl-games agent; as a program, ``fake_agent.py root iterations delay [resume]``, it trains."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch

STEPS = 64


class FakeAgent:
    """Counts iterations; its one weight is their number, so a lost or doubled iteration shows."""

    def __init__(self, max_iterations, policies=("pi", "pi_h")):
        self.iteration = 0
        self.env_steps = 0
        self.max_iterations = max_iterations
        self.policy_names = list(policies)
        self.weight = torch.zeros(3)
        self.said = []

    def notices(self):
        return list(self.said)

    def bad_states(self, most):
        return []

    def get_full_state_weights(self):
        return {"weight": self.weight, "iteration": self.iteration, "env_steps": self.env_steps, "nested": [{"a": 1.5}]}

    def set_full_state_weights(self, state):
        self.weight = state["weight"]
        self.iteration = state["iteration"]
        self.env_steps = state["env_steps"]

    def step(self, **extra):
        self.iteration += 1
        self.env_steps += STEPS
        self.weight = self.weight + 1
        return self.metrics(**extra)

    def metrics(self, **extra):
        found = {"iteration": self.iteration, "env_steps": self.env_steps, "env_steps_per_second": 1234.0}
        for policy in self.policy_names:
            done = self.iteration % 2 == 0
            found["episodes/" + policy] = 4.0 if done else 0.0
            found["return_task/" + policy] = self.iteration / 100.0 if done else math.nan
            found["return_heuristic/" + policy] = float(self.iteration) if done else math.nan
            found["episode_length/" + policy] = 50.0 if done else math.nan
            found["episode/drawer_open/" + policy] = 0.25 if done else math.nan
        found.update(alpha=0.5, bad_worlds=1.0, overflow=0.0)
        found.update(extra)
        return found

    def train(self, observer, delay=0.0):
        """What the real agent's training loop owes its observer."""
        observer.after_init(self)
        while self.iteration < self.max_iterations:
            time.sleep(delay)
            if observer.on_iteration(self, self.step()):
                break
        observer.on_finish(self)


def main():
    import signal

    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.record.folder import RunFolder, locate_resume
    from hepo_isaac.runs.train.observer import RunObserver, RunOptions

    # a test runner started in the background hands down an ignored Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    root, iterations, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    payload = None
    if len(sys.argv) > 4:
        folder, path = locate_resume(sys.argv[4])
        payload = load_checkpoint(path, "Fake", "hepo")
        folder.begin_resume()
    else:
        folder = RunFolder.create("Fake", "hepo", 7, {"task": "Fake"}, root=root)
    header = {"task": "Fake", "algo": "hepo", "num_envs": 8, "seed": 7}
    options = RunOptions(plot=False, tensorboard=False)
    observer = RunObserver(folder, header, [("engine", "none")], options, resume=payload)
    FakeAgent(iterations).train(observer, delay)
    sys.exit(3 if observer.interrupted else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
