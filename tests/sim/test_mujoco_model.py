"""SceneSpec to MjModel: names, masses, friction, and errors that name the culprit."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import pytest
from simlab import ASSETS, DT, workshop

from hepo_isaac.sim.mujoco.model import compile_scene
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, MarkerSpec, SceneSpec


def scene(*actors, **settings):
    return SceneSpec(actors=actors, control_dt=DT, substeps=2, **settings)


def arm(*drives, **settings):
    return ActorSpec("arm", ASSETS / "arm.xml", drives=drives, **settings)


def test_a_pattern_with_alternatives_covers_all_of_them():
    model = compile_scene(scene(arm(DriveSpec("shoulder|elbow", stiffness=5.0, damping=1.0)))).model
    assert [model.actuator(i).name for i in range(model.nu)] == ["arm/shoulder", "arm/elbow"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (lambda: scene(arm(DriveSpec("wrist"))), r"'wrist' of actor 'arm' matches no joint.*shoulder, elbow"),
        (
            lambda: scene(replace(arm(), asset=ASSETS / "arn.xml")),
            r"actor 'arm': there is no asset .*arn\.xml; beside it: .*arm\.xml",
        ),
        (lambda: scene(arm(DriveSpec("el"))), r"'el' of actor 'arm' matches no joint"),  # a part of a name is no match
        (lambda: scene(arm(DriveSpec("elbow"), DriveSpec("e.*"))), r"'elbow' of actor 'arm' is matched by two drives"),
        (lambda: scene(arm(body_mass={"hand": 1.0})), r"unknown body 'hand'; it has: upper, lower, tip"),
        (lambda: scene(arm(), body_states=("arm/hand",)), r"no body arm/hand"),
        (lambda: scene(arm(), contact_bodies=("arm/hand",)), r"unknown body 'arm/hand'"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        compile_scene(spec())


def test_replaced_mass_scales_the_inertia_and_keeps_the_centre():
    plain = compile_scene(scene(arm())).model
    heavy = compile_scene(scene(arm(body_mass={"upper": 3.0}))).model
    upper, other = plain.body("arm/upper"), heavy.body("arm/upper")
    assert other.mass[0] == pytest.approx(3.0)
    assert other.inertia == pytest.approx(upper.inertia * 3.0)
    assert other.ipos == pytest.approx(upper.ipos)
    assert heavy.body("arm/lower").mass[0] == pytest.approx(0.5)


def test_gravity_off_floats():
    model = compile_scene(scene(arm(gravity=False))).model
    assert model.body_gravcomp[1:].tolist() == [1.0, 1.0, 1.0]


def test_the_ground_yields_to_the_actor_in_friction():
    model = compile_scene(workshop()).model
    box = model.geom_bodyid.tolist().index(model.body("box/cube").id)
    assert model.geom_priority[box] > model.geom_priority[0]
    assert model.geom_solref[box].tolist() == model.geom_solref[0].tolist()


def test_an_actors_own_friction_counts_in_all_its_contacts():
    """Whatever the other one's: it has a higher priority than any other actor, and than the ground."""
    slippery = ActorSpec("slippery", ASSETS / "box.xml", fixed=False, friction=0.3)
    usual = ActorSpec("usual", ASSETS / "box.xml", fixed=False)
    model = compile_scene(scene(slippery, usual, ground_plane=True)).model
    mine = [model.geom_bodyid.tolist().index(model.body(name).id) for name in ("slippery/cube", "usual/cube")]
    assert model.geom_friction[mine, 0] == pytest.approx([0.3, 1.0])
    assert model.geom_priority[[*mine, 0]].tolist() == [2, 1, 0]


def test_a_marker_with_joints_is_shown_as_it_stands():
    """Its joints are not the scene's: a film's positions are the engine's."""
    shown = compile_scene(scene(arm(), markers=(MarkerSpec("goal", ASSETS / "pendulum.xml"),)))
    assert mujoco.MjModel.from_xml_string(shown.spec_text).nq == shown.model.nq
