"""What Isaac Gym's importer is given: the same robots, in elements that NVIDIA's own MJCF files use."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np
import pytest

from hepo_isaac.sim.isaacgym.asset import compile_asset
from hepo_isaac.sim.spec import ActorSpec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tasks" / "robots" / "assets"
ASSETS = sorted(FOLDER.glob("*.xml"))
PLAIN = {"mujoco", "compiler", "worldbody", "body", "inertial", "joint", "geom", "freejoint"}
PLAIN |= {"tendon", "fixed", "contact", "pair", "exclude"}


@pytest.mark.parametrize("path", ASSETS, ids=lambda p: p.stem)
def test_the_plain_file_is_the_same_robot(path):
    asset = compile_asset(ActorSpec("x", path, fixed=True))
    plain, original = mujoco.MjModel.from_xml_string(asset.mjcf), mujoco.MjModel.from_xml_path(str(path))
    assert {element.tag for element in ElementTree.fromstring(asset.mjcf).iter()} <= PLAIN
    assert plain.nbody == original.nbody
    assert [plain.joint(j).name for j in range(plain.njnt)] == [original.joint(j).name for j in range(original.njnt)]
    for name in ("body_mass", "body_ipos", "body_inertia", "jnt_axis", "jnt_pos", "jnt_limited", "jnt_type"):
        np.testing.assert_allclose(getattr(plain, name), getattr(original, name), atol=1e-7, err_msg=name)
    np.testing.assert_allclose(plain.jnt_range * plain.jnt_limited[:, None], original.jnt_range, atol=1e-7)
    np.testing.assert_allclose(plain.body_pos[2:], original.body_pos[2:], atol=1e-7)
    np.testing.assert_allclose(plain.body_quat[2:], original.body_quat[2:], atol=1e-7)
    np.testing.assert_allclose(asset.root_position, original.body_pos[1], atol=1e-7)
    np.testing.assert_allclose(np.array(asset.root_quaternion)[[3, 0, 1, 2]], original.body_quat[1], atol=1e-7)
    solid = (original.geom_contype | original.geom_conaffinity) > 0
    assert asset.shapes == plain.ngeom == solid.sum()
    for name in ("geom_type", "geom_size", "geom_pos", "geom_bodyid"):
        np.testing.assert_allclose(getattr(plain, name), getattr(original, name)[solid], atol=1e-7, err_msg=name)
    assert plain.ntendon == original.ntendon
    np.testing.assert_allclose(plain.wrap_prm, original.wrap_prm, atol=1e-9)
    assert plain.npair == original.npair
    assert list(plain.exclude_signature) == list(original.exclude_signature)


def test_pairs_and_exceptions_make_an_actor_bring_its_own_filter():
    """The importer makes it of contype and conaffinity, of pairs, and, where there is self-collision, of exceptions."""

    def own(mask):
        found = {p.stem: compile_asset(ActorSpec("x", p, collision_mask=mask)).own_filter for p in ASSETS}
        return [name for name, brings in found.items() if brings]

    assert own(0) == ["shadow_hand"]
    assert own(1) == ["allegro_hand", "shadow_hand"]
    hand = compile_asset(ActorSpec("x", FOLDER / "shadow_hand.xml", collision_mask=0)).mjcf
    shapes = list(ElementTree.fromstring(hand).iter("geom"))
    assert {(shape.get("contype"), shape.get("conaffinity")) for shape in shapes} == {("1", "0")}


def test_free_actors_float_and_fixed_ones_do_not():
    path = FOLDER / "ant.xml"
    assert "freejoint" in compile_asset(ActorSpec("x", path, fixed=False)).mjcf
    assert "freejoint" not in compile_asset(ActorSpec("x", path, fixed=True)).mjcf


def test_a_root_that_turns_hangs_on_a_mount():
    path = Path(__file__).parent / "assets" / "pendulum.xml"
    tree = ElementTree.fromstring(compile_asset(ActorSpec("x", path)).mjcf)
    mount = tree.find("worldbody/body")
    assert mount.get("name") == "mount"
    assert mount.find("joint") is None
    assert mount.find("body/joint").get("name") == "swing"
    with pytest.raises(ValueError, match=r"actor 'x' is free, but its root body 'rod' has the joint 'swing'"):
        compile_asset(ActorSpec("x", path, fixed=False))


def test_feet_that_are_tied_to_the_world_become_anchors():
    """BallBalance's stand 0.4 m from the middle and, with the tray 0.559117 m up, 0.02 m above the ground."""
    anchors = compile_asset(ActorSpec("x", FOLDER / "balance_bot.xml", fixed=False)).anchors
    assert [a.body for a in anchors] == ["lower_leg0", "lower_leg1", "lower_leg2"]
    angles = np.radians([0.0, 120.0, 240.0])
    height = np.full(3, 0.02 - 0.559117)
    expected = np.stack((0.4 * np.cos(angles), 0.4 * np.sin(angles), height), 1)
    np.testing.assert_allclose([a.target for a in anchors], expected, atol=2e-4)
    np.testing.assert_allclose([a.offset for a in anchors], [[0, 0, 0.18]] * 3)


def test_masses_of_the_spec_replace_the_files():
    box = Path(__file__).parent / "assets" / "box.xml"
    asset = compile_asset(ActorSpec("x", box, fixed=False, body_mass={"cube": 5.0}))
    model = mujoco.MjModel.from_xml_string(asset.mjcf)
    assert model.body_mass[1] == pytest.approx(5.0)
    np.testing.assert_allclose(model.body_inertia[1], 5.0 * 0.2**2 / 6, rtol=1e-6)
    assert asset.links[0].mass == pytest.approx(5.0)
    np.testing.assert_allclose(np.diag(asset.links[0].inertia), 5.0 * 0.2**2 / 6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"body_mass of actor 'x' names unknown body 'lid'; it has: cube"):
        compile_asset(ActorSpec("x", box, body_mass={"lid": 1.0}))


BODY = '<mujoco><worldbody><body name="b">%s<geom name="g" size="0.1"/></body></worldbody>%s</mujoco>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BODY % ('<joint name="j" type="ball"/>', ""), "joint 'j' of actor 'x' is neither a hinge nor a slide"),
        (
            BODY % ('<joint name="j"/>', '<equality><joint joint1="j"/></equality>'),
            "constraint 0 of actor 'x' is not a <connect> to the world",
        ),
        (
            BODY
            % (
                '<site name="s"/><site name="t" pos="1 0 0"/>',
                '<tendon><spatial name="rope"><site site="s"/><site site="t"/></spatial></tendon>',
            ),
            "tendon 'rope' of actor 'x' is not fixed",
        ),
        (
            "<mujoco><worldbody><body/><body/></worldbody></mujoco>",
            "must hold exactly one top-level body, found 2",
        ),
        (
            '<mujoco><asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset><worldbody><body name="b">'
            '<geom name="g" type="mesh" mesh="m"/></body></worldbody></mujoco>',
            "shape 'g' of actor 'x' is a mesh; Isaac Gym gets spheres",
        ),
    ],
)
def test_what_isaac_gym_cannot_take_is_named(tmp_path, text, message):
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        compile_asset(ActorSpec("x", tmp_path / "x.xml"))


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "y.xml").write_text("<mujoco/>")
    with pytest.raises(ValueError, match=r"there is no asset .*x.xml; beside it: y.xml"):
        compile_asset(ActorSpec("x", tmp_path / "x.xml"))
