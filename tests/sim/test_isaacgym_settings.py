"""Collision filters against the groups and masks that they stand for, and the settings' errors."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hepo_isaac.sim.isaacgym.settings import collision_filters, read_settings
from hepo_isaac.sim.spec import ActorSpec, SceneSpec

BOX = Path(__file__).parent / "assets" / "box.xml"


def scene(*bits, ground=False, **options):
    actors = [
        ActorSpec("a%d" % i, BOX, fixed=False, collision_group=g, collision_mask=m) for i, (g, m) in enumerate(bits)
    ]
    return SceneSpec(tuple(actors), 0.01, 1, ground_plane=ground, options={"isaacgym": options})


def filters(spec, joints=0, own=()):
    names = [a.name for a in spec.actors]
    found = collision_filters(spec, dict.fromkeys(names, 1), dict.fromkeys(names, joints), {n: n in own for n in names})
    return list(found.values())


def touch(one, two):
    """MuJoCo's rule."""
    return bool(one[0] & two[1] or two[0] & one[1])


@pytest.mark.parametrize("joints", [0, 1])
def test_filters_do_what_groups_and_masks_say(joints):
    """Every combination of three actors with groups 1, 2 and masks 0..3; one with joints may touch itself, too."""
    first = 0 if joints else 1
    for bits in itertools.product(itertools.product((1, 2), range(4)), repeat=3):
        may = {(i, j): touch(bits[i], bits[j]) for i in range(3) for j in range(3)}
        if joints and any(may[i, i] and not may[i, j] for i in range(3) for j in range(3)):
            with pytest.raises(ValueError, match="is to touch itself but not"):
                filters(scene(*bits), joints)
            continue
        got = filters(scene(*bits), joints)
        for i in range(3):
            for j in range(i + first, 3):
                assert ((got[i] & got[j]) == 0) == may[i, j], (bits, got)


def test_published_filters_of_frankacabinet():
    """Robot 1, cabinet 2, props 0: neither touches itself, everything touches everything else."""
    assert filters(scene((1, 6), (2, 5), (4, 7)), joints=1) == [1, 2, 0]


def test_a_hand_with_pairs_brings_its_own():
    assert filters(scene((1, 0), (2, 1)), joints=1, own=("a0",))[0] == -1


def test_actors_without_shapes_need_no_filter():
    spec = scene((1, 0), (2, 0))
    none = {"a0": 0, "a1": 0}
    assert collision_filters(spec, none, none, dict.fromkeys(none, False)) == none


def test_the_ground_cannot_be_passed_through():
    assert filters(scene((1, 0), ground=True)) == [0]
    with pytest.raises(ValueError, match="actor 'a0' is to pass through the ground"):
        filters(scene((2, 2), ground=True))


def test_settings_are_read():
    nvidia = {"file": "urdf/x.urdf", "bodies": {"cube": "box"}}
    found = read_settings(scene((1, 1), substeps=4, simulates=2, actors={"a.": {"friction": 0.5, "nvidia": nvidia}}))
    assert (found.simulates, found.substeps) == (2, 4)
    assert found.actor("a0").friction == 0.5
    assert found.actor("a0").nvidia.bodies == {"cube": "box"}
    assert found.actor("b").friction is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"substep": 2}, r"options.isaacgym.substep is no setting; there are: simulates, substeps"),
        ({"actors": {"b": {}}}, r"options.isaacgym.actors names 'b'; the scene's actors are: a0"),
        ({"actors": {"a0": {"colour": 1}}}, r"options.isaacgym.actors.a0.colour is no setting"),
        ({"actors": {"a0": {"nvidia": {"path": 1}}}}, r"options.isaacgym.actors.a0.nvidia.path is no setting"),
    ],
)
def test_mistakes_in_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        read_settings(scene((1, 1), **options))
