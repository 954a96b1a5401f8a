"""The suite's formulas against numbers worked out by hand, and its optima against searches that know no formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tasks.suite import effort_reach, key_door, maze2d, mountain_car, park2d, push2d, two_peaks
from tasks.suite.analytic import reach_steps
from tasks.suite.push2d_heuristics import NAMED
from tests.tasks.suite import OPTIMAL, config, flee, hover, make, open_drawer, returns

N = 512


# -- rewards and dynamics by hand ---------------------------------------------------------------------------------
def tensors(*rows):
    return [torch.tensor(r) for r in rows]


def push_state(pos, gap, opening, actions=(0.0, 0.0, 0.0)):
    return push2d.PushState(*tensors([pos], [gap], [opening], [0.7 - opening], [actions]))


def total(name, state):
    return sum(NAMED[name](state).values()).item()


def test_push_heuristics_by_hand():
    """Gripper (0.1, 0.4), handle at 0.7 - 0.2 = 0.5: dp = (-0.4, 0.4), d = 0.5657, f = 0.05, o = 0.2, s = 0."""
    s, d = push_state([0.1, 0.4], 0.05, 0.2, [1.0, 0.0, 0.0]), math.sqrt(0.32)
    expected = {
        "default": -d + 3 * 0.2 / 0.35,
        "h1": -0.32 + 40.0,
        "h2": -0.01 - 2 * d + 1.5,
        "h3": 1.5 + 2 * math.exp(-0.16),
        "h4": -2 * d - 0.25 - 0.01 / 3,
        "h5": 1 / (1 + d) + 0.2,
        "h6": -0.8 + 10 * (0.2 - 0.35),
        "h7": -3 * 0.16 + 2.0,
        "h8": -d + 2.0,
        "h9": 0.1 * d + 100 * (d - 0.1) * 0.05,
        "h10": -d - math.sqrt(2),
        "h11": 1.0 - d,
        "h12": 0.16,
        "sparse": 0.0,
        "q3": 0.3 * (-d + 3 * 0.2 / 0.35) + 0.7 * 3 * d,
        "reversed": d - 3 * 0.2 / 0.35,
    }
    for name, value in expected.items():
        assert total(name, s) == pytest.approx(value, abs=1e-5), name
    # drawer open, on the handle, fingers 0.02: every success term and every threshold
    s = push_state([0.3, 0.0], 0.02, 0.4)
    open_now = {"default": 0.4 + 3 + 2, "h1": 260.0, "h4": 7.4, "h5": 2.4, "h7": 24.0, "h11": 2.0, "h12": 1.0}
    for name, value in {**open_now, "sparse": 10.0, "q0": 0.3, "q10": 5.4}.items():
        # the gripper is at the handle up to rounding, except q0, which is 3 d
        assert total(name, s) == pytest.approx(value, abs=0.301 if name == "q0" else 1e-4), name
    assert total("h5", push_state([-0.9, 0.0], 0.0, 0.0)) == pytest.approx(1 / 2.6 - 1)


def test_push_dynamics_by_hand():
    env = make("Push2D", 1)
    step = lambda s, a: env.task.advance(s, torch.tensor([a]))  # noqa: E731
    far = step(push_state([0.0, 0.0], 0.1, 0.0), [-1.0, 1.0, -1.0])
    assert far.pos[0].tolist() == pytest.approx([-0.1, 0.1]) and far.gap.item() == pytest.approx(0.08)
    assert far.opening.item() == 0.0
    held = step(push_state([0.65, 0.05], 0.02, 0.0), [-1.0, 0.0, 0.0])
    assert held.opening.item() == pytest.approx(0.1) and held.offset[0].tolist() == pytest.approx([-0.05, 0.05])
    assert step(push_state([0.65, 0.05], 0.05, 0.0), [-1.0, 0.0, 0.0]).opening.item() == 0.0  # fingers open
    assert step(push_state([0.5, 0.05], 0.02, 0.0), [-1.0, 0.0, 0.0]).opening.item() == 0.0  # too far
    assert step(push_state([0.65, 0.0], 0.02, 0.0), [1.0, 0.0, 0.0]).opening.item() == 0.0  # pushed shut
    assert step(push_state([-1.0, 1.0], 0.0, 0.0), [-1.0, 1.0, -1.0]).pos[0].tolist() == [-1.0, 1.0]
    assert env.task.task_reward(push_state([0.0, 0.0], 0.0, 0.36)).item() == pytest.approx(0.01)
    assert env.task.task_reward(push_state([0.0, 0.0], 0.0, 0.35)).item() == 0.0


def test_other_rewards_and_terminations_by_hand():
    survival = make("Survival", 2)
    state = type(survival.task.state())(*tensors([0.5, 0.2], [0.9, 0.1]))
    after = survival.task.advance(state, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    assert after.speed.tolist() == pytest.approx([0.55, 0.15])
    assert after.lean.tolist() == pytest.approx([0.9 * 1.11 + 0.1, 0.103])
    assert survival.task.over(after).tolist() == [True, False]
    assert survival.task.task_reward(after).tolist() == pytest.approx([0.0055, 0.0015])
    assert two_peaks.landscape(torch.tensor([-0.5, 0.8])).tolist() == pytest.approx([0.3 + math.exp(-(3.25**2)), 1.0])
    ring = make("RingRace", 1)
    state = ring.task.state()
    seen = []
    for _ in range(7):
        state = ring.task.advance(state, torch.ones(1, 1))
        seen.append((state.quarters.item(), state.entered.item()))
    assert seen == [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0), (0, 0), (1, 0)]  # 0.1 at step 3, 0.25 at step 7
    key = make("KeyDoor", 1).task
    s = key_door.KeyState(*tensors([[-0.6, 0.5]], [0.0], [0.0]))
    s = key.advance(s, torch.tensor([[-1.0, 1.0]]))
    assert s.has.item() == 1.0
    assert s.progress.item() == pytest.approx(math.hypot(0.1, 0.2) + math.hypot(1.4, 1.4) - math.hypot(1.4, 1.3))
    at_door = key_door.KeyState(*tensors([[0.7, -0.6]] * 2, [0.0, 1.0], [0.0, 0.0]))
    assert key.task_reward(at_door).tolist() == pytest.approx([0.0, 0.01])


def test_car_conserves_energy_only_without_throttle_and_parks():
    s = mountain_car.CarState(*tensors([-0.8], [0.0]))
    energy = [mountain_car.default(s)["energy"].item()]
    for _ in range(20):
        s = mountain_car.drive(s, torch.zeros(1))
        energy.append(mountain_car.default(s)["energy"].item())
    assert max(energy) - min(energy) < 0.1
    s = mountain_car.CarState(*tensors([0.49], [0.1]))
    for _ in range(3):
        s = mountain_car.drive(s, -torch.ones(1))
        assert (s.x.item(), s.v.item()) == (0.5, 0.0)


def test_walls_of_the_maze():
    pos = torch.tensor([[0.25, 0.0], [0.25, 0.45], [0.25, 0.6], [-0.4, 0.45], [0.35, 0.0], [0.2, 0.55]])
    act = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    moved = [[0.25, 0.0], [0.25, 0.45], [0.4, 0.6], [-0.4, 0.6], [0.35, 0.0], [0.2, 0.55]]
    assert torch.allclose(maze2d.move(pos, act), torch.tensor(moved))


# -- optima against searches --------------------------------------------------------------------------------------
def maze_search(start, spacing=0.025):
    """Fewest steps to the goal among positions start + multiples of 0.025, moves up to 0.15 per axis."""
    moves = np.arange(-6, 7) * spacing / 0.15
    actions = torch.tensor(np.stack(np.meshgrid(moves, moves), -1).reshape(-1, 2), dtype=torch.float32)
    front, seen = torch.tensor([start]), set()
    for step in range(1, 60):
        moved = maze2d.move(front.repeat_interleave(len(actions), 0), actions.repeat(len(front), 1))
        if (maze2d.distance(moved) < maze2d.RADIUS).any():
            return step
        keys = ((moved - torch.tensor(start)) / spacing).round().long()
        new = {tuple(k) for k in keys.unique(dim=0).tolist()} - seen
        seen |= new
        front = torch.tensor(sorted(new)) * spacing + torch.tensor(start)
    return None


@pytest.mark.parametrize("start", [(0.0, 0.1), (0.19, -0.05), (-0.15, 0.18)])
def test_maze_steps_against_breadth_first_search(start):
    u = torch.tensor([start])
    ours = torch.maximum(maze2d.steps_past(u[:, 0] + 0.3), maze2d.steps_past(0.5 - u[:, 1].abs())) + maze2d.around()
    found = maze_search(start)
    assert ours.item() <= found <= ours.item() + 1  # the lattice cannot always hug the corner


def test_geodesic_distance_leads_to_the_goal():
    """Descending it by the best of 16 directions reaches the goal from every start."""
    pos = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    angles = torch.arange(16) * (math.pi / 8)
    directions = torch.stack((torch.cos(angles), torch.sin(angles)), 1)
    for _ in range(40):
        tried = torch.stack([maze2d.move(pos, d.expand_as(pos)) for d in directions])
        best = torch.stack([maze2d.geodesic_distance(t) for t in tried]).argmin(0)
        pos = tried[best, torch.arange(200)]
    assert (maze2d.distance(pos) < maze2d.RADIUS).all()


def test_two_peaks_against_dynamic_programming():
    """100 steps on a grid of 0.005 with moves of up to 0.08."""
    x = torch.linspace(-1.0, 1.0, 401)
    r, value = two_peaks.landscape(x), torch.zeros(401)
    for _ in range(100):
        padded = torch.nn.functional.pad(r + value, (16, 16), value=-1.0)
        value = padded.unfold(0, 33, 1).amax(1)
    starts = (x >= two_peaks.START[0]) & (x <= two_peaks.START[1])
    optimal = task_optimum("TwoPeaks")
    assert value[starts].mean().item() / 100 == pytest.approx(optimal, abs=0.002)


def task_optimum(name):
    return config(name)["scores"]["optimal"]


def test_car_steps_against_reachable_sets():
    """No sequence of throttles -1, 0, 1 parks sooner: one state kept per cell of 0.006 x 0.0015."""
    for start in (-0.6, -0.45):
        x, v, steps = np.array([start]), np.array([0.0]), 0
        while x.max() < 0.5:
            a = np.repeat([-1.0, 0.0, 1.0], len(x))
            x, v = np.tile(x, 3), np.tile(v, 3)
            v = np.clip(v + 0.006 * a - 0.01 * np.cos(3 * x), -0.14, 0.14)
            x = np.maximum(x + v, -1.2)
            v[x == -1.2] = 0.0
            _, keep = np.unique(np.stack((x // 0.006, v // 0.0015)), axis=1, return_index=True)
            x, v, steps = x[keep], v[keep], steps + 1
        index = min(40, round((start + 0.6) / 0.2 * 41))
        assert abs(mountain_car.fewest_steps(100)[index].item() - steps) <= 1


def test_parking_cost_is_a_bound_that_a_finer_grid_confirms():
    coarse, fine = park2d.least_cost(40), park2d.least_cost(40, 150, 45, 31)
    assert coarse.mean().item() == pytest.approx(fine.mean().item(), abs=0.2)  # 0.002 of J
    assert abs(coarse[100].item()) < 1e-4 and (coarse[:95].diff() < 0).all()  # nearer is cheaper


def test_reach_steps_by_hand():
    offsets = torch.tensor([[1.0, 0.0], [0.0, 0.05], [0.35, 0.35], [-0.5, 0.2]])
    # radius 0.1, speed 0.1: 1 - 0.1 n < 0.1; inside; sqrt 2 (0.35 - 0.1 n) < 0.1; 0.5 - 0.1 n < 0.1
    assert reach_steps(offsets, 0.1001, 0.1).tolist() == [9, 0, 3, 4]


def test_effort_reach_rest_point_minimises_the_cost():
    w, g = 0.5, torch.tensor([[0.6, 0.0]])
    x = torch.linspace(0.0, 1.0, 1001)
    state = effort_reach.ReachState(torch.stack((x, 0 * x), 1), g.expand(1001, 2), torch.stack((0.8 * x, 0 * x), 1))
    h = sum(effort_reach.EffortReach.heuristics["default"](state).values())
    assert x[h.argmax()].item() == pytest.approx(0.6 / (1 + 0.64 * w), abs=1e-3)


# -- which of Push2D's heuristics want the drawer open ------------------------------------------------------------
def push_returns(policy, heuristic, room=1.0):
    task_return, h = returns(make("Push2D", N, heuristic=heuristic, room=room), policy)
    return task_return.mean().item(), h.mean().item()


@pytest.mark.parametrize("heuristic", ["h9", "h12", "q0", "q4", "reversed"])
def test_wrong_sign_pays_most_for_fleeing_and_then_the_drawer_stays_shut(heuristic):
    away = push_returns(flee, heuristic)
    assert away[1] > push_returns(open_drawer, heuristic)[1]
    assert away[1] > push_returns(hover, heuristic)[1]
    assert away[0] == 0.0


@pytest.mark.parametrize(
    "heuristic", ["default", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8", "h11", "q5", "q10", "sparse"]
)
def test_right_sign_pays_most_for_opening(heuristic):
    opened = push_returns(open_drawer, heuristic)
    assert opened[1] > push_returns(flee, heuristic)[1]
    assert opened[1] > push_returns(hover, heuristic)[1]


def test_reach_only_pays_for_hovering_and_a_small_room_mends_h12():
    hovering = push_returns(hover, "h10")
    assert hovering[1] > push_returns(open_drawer, "h10")[1] > push_returns(flee, "h10")[1]
    assert hovering[0] == 0.0
    wide, small = (push_returns(flee, "h12", room)[1] - push_returns(open_drawer, "h12", room)[1] for room in (1, 0.5))
    assert small < 0 < wide


def test_noise_is_a_fixed_function_of_the_state():
    a = returns(make("Push2D", N, heuristic="noise"), OPTIMAL["Push2D"])[1]
    b = returns(make("Push2D", N, heuristic="noise"), OPTIMAL["Push2D"])[1]
    assert torch.equal(a, b) and a.std() > 0
