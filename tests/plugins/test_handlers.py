# SPDX-License-Identifier: Apache-2.0
"""The single profile handler: one round, one profile, its result."""

from __future__ import annotations

import numpy as np
import pytest

from epp.api import PluginError, ProfileHandler, ProfileResult, ResourceExhausted
from epp.plugins.handlers.single_profile import SingleProfileHandler
from epp.testing import make_endpoints, make_plugin, make_request

REQUEST = make_request("Write a poem about clouds")


def result(profile: str) -> ProfileResult:
    return ProfileResult(profile, make_endpoints(1), filters=(), scores=(), total=np.zeros(1), picked=(0,))


@pytest.fixture
def handler() -> ProfileHandler:
    built = make_plugin(SingleProfileHandler)
    assert isinstance(built, ProfileHandler)
    return built


def test_runs_the_profile_once(handler: ProfileHandler) -> None:
    assert list(handler.pick_profiles(REQUEST, ["default"], {})) == ["default"]
    assert list(handler.pick_profiles(REQUEST, ["default"], {"default": result("default")})) == []
    assert list(handler.pick_profiles(REQUEST, ["default"], {"default": None})) == []


def test_primary_is_the_only_profile(handler: ProfileHandler) -> None:
    assert handler.primary(REQUEST, {"main": result("main")}) == "main"


def test_a_failed_profile_refuses_the_request(handler: ProfileHandler) -> None:
    with pytest.raises(ResourceExhausted, match=r"^failed to run scheduler profile 'main'$") as caught:
        handler.primary(REQUEST, {"main": None})
    assert caught.value.status == 429


@pytest.mark.parametrize(("profiles", "told"), [((), "0 profiles ran (none)"), (("a", "b"), "2 profiles ran (a, b)")])
def test_takes_exactly_one_profile(handler: ProfileHandler, profiles: tuple[str, ...], told: str) -> None:
    with pytest.raises(PluginError) as caught:
        handler.primary(REQUEST, {name: result(name) for name in profiles})
    assert told in str(caught.value)
    assert "keep one of schedulingProfiles" in str(caught.value)
