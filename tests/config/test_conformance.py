# SPDX-License-Identifier: Apache-2.0
"""The configuration of the conformance tests: the built-in one and two plugins more."""

from __future__ import annotations

from epp.config.build import assemble
from epp.config.catalog import Catalog
from epp.config.conformance import conformance_text
from epp.config.load import load_text
from epp.config.plan import auto_response_phase, plan_dict, plan_text
from epp.contract.plugins import Reads
from epp.testing import FakeClock

NAME = 'a"b: {c}'


def test_it_is_the_built_in_configuration_and_two_plugins() -> None:
    found, plain = load_text(conformance_text(NAME), Catalog()), load_text("", Catalog())
    [profile], [expected] = found.profiles, plain.profiles
    assert profile.filters == ("header-based-testing-filter",)
    chosen = [(scorer.name, scorer.weight) for scorer in profile.scorers]
    assert chosen == [(scorer.name, scorer.weight) for scorer in expected.scorers]
    assert (profile.name, profile.picker) == (expected.name, expected.picker)
    assert found.reads == plain.reads | Reads.RESPONSE_HEADERS
    assert found.warnings == ()
    assert "destination-endpoint-served-verifier" in found.active
    assert found.instance("destination-endpoint-served-verifier").parameters.pool == NAME


def test_its_objects_can_be_made() -> None:
    assembly = assemble(load_text(conformance_text(""), Catalog()), FakeClock(), 1)
    assert assembly.reads & Reads.RESPONSE_HEADERS


def test_the_plan_says_who_sees_the_headers_of_responses() -> None:
    found, plain = load_text(conformance_text(""), Catalog()), load_text("", Catalog())
    assert (auto_response_phase(found.reads), auto_response_phase(plain.reads)) == ("headers", "release")
    assert auto_response_phase(found.reads | Reads.RESPONSE_BODY) == "full"
    assert plan_dict(found)["reads_response_headers_for"] == ["destination-endpoint-served-verifier"]
    assert plan_dict(plain)["reads_response_headers_for"] == []
    assert "their headers shown to destination-endpoint-served-verifier" in plan_text(found)
    assert "their headers" not in plan_text(plain)
