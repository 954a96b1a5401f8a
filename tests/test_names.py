"""Names in messages, and names that may be left out in part."""

from __future__ import annotations

from hepo_isaac.errors import FAMILY, MANY, listed, unknown
from hepo_isaac.locate import full_name, task_names


def test_a_long_list_counts_a_family_of_names():
    others = ["t%02d" % k for k in range(MANY)]
    few, many = (["Hand%d" % k for k in range(count)] for count in (FAMILY - 1, FAMILY))
    assert listed([*others, "Hand", *many]) == ", ".join([*others, "Hand (and %d that begin so)" % FAMILY])
    assert listed([*others, "Hand", *few]) == ", ".join([*others, "Hand", *few])
    assert listed(["Hand", *many]) == ", ".join(["Hand", *many])  # a short one is whole


def test_an_unknown_task_is_answered_in_less_than_a_screen():
    said = str(unknown("task", "Annt", task_names()))
    assert "did you mean 'Ant'" in said and "ShadowHand (and 22 that begin so)" in said
    assert len(said) < 500


def test_dexterous_tasks_are_known_without_the_hand():
    assert full_name("Over") == full_name("ShadowHandOver") == "ShadowHandOver"
    assert [full_name(name) for name in ("", "Ant", "ShadowHand", "nothing")] == ["", "Ant", "ShadowHand", "nothing"]
