"""Defaults against which settings are checked are composed once per choice of groups: half the time of these tests."""

from __future__ import annotations

import functools

import pytest

from hepo_isaac import overrides


@functools.cache
def _defaults(choices):
    return _compose(list(choices))


_compose = overrides.compose


@pytest.fixture(autouse=True)
def defaults_composed_once(monkeypatch):
    """What is composed with a test's own settings is composed anew: hepo_isaac.api.settings has its own name for it."""
    monkeypatch.setattr(overrides, "compose", lambda choices: _defaults(tuple(choices)))
