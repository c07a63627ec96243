# SPDX-License-Identifier: Apache-2.0
"""What Envoy and the client are told of a decision besides the endpoint."""

from __future__ import annotations

import numpy as np

from epp.contract.decision import Decision, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoint, Endpoints
from epp.director.telling import SCORES, summary, with_scores
from epp.extproc import Route
from epp.extproc.replies import route_headers
from epp.protos.ext_proc_pb2 import ProcessingResponse
from epp.testing import make_endpoints

DESTINATION = "x-gateway-destination-endpoint"
METADATA = {"envoy.lb": {DESTINATION: "127.0.1.2:8000"}}


def decided(totals: list[float], picked: int = 0, scored: bool = True, endpoints: Endpoints | None = None) -> Decision:
    endpoints = endpoints or make_endpoints(len(totals))
    scores = (ScoreTrace("s", 1.0, np.array(totals)),) if scored else ()
    result = ProfileResult("default", endpoints, (), scores, np.array(totals), (picked,))
    return Decision("id", "m", "m", "default", {"default": result}, len(totals), 0.0)


def test_every_scored_endpoint_is_told_also_those_not_picked() -> None:
    told = with_scores(METADATA, "envoy.lb", decided([0.5, 1.25, 0.0], picked=1))
    scores = {"127.0.1.1:8000": 0.5, "127.0.1.2:8000": 1.25, "127.0.1.3:8000": 0.0}
    assert told == {"envoy.lb": {DESTINATION: "127.0.1.2:8000", SCORES: scores}}
    assert METADATA == {"envoy.lb": {DESTINATION: "127.0.1.2:8000"}}
    reply = ProcessingResponse.FromString(route_headers(Route(metadata=told)))
    fields = reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    assert fields[DESTINATION].string_value == "127.0.1.2:8000"
    sent = fields[SCORES].struct_value.fields
    assert {address: value.number_value for address, value in sent.items()} == scores
    assert {value.WhichOneof("kind") for value in sent.values()} == {"number_value"}


def test_without_a_namespace_the_scores_stand_at_the_top() -> None:
    told = with_scores({DESTINATION: "x"}, "", decided([0.5]))
    assert told == {DESTINATION: "x", SCORES: {"127.0.1.1:8000": 0.5}}


def test_without_scorers_there_are_no_scores() -> None:
    assert with_scores(METADATA, "envoy.lb", decided([0.0, 0.0], scored=False)) == METADATA


def test_the_summary_is_one_line_of_ascii() -> None:
    assert summary(decided([0.5, 1.25, 0.75], picked=1)) == (
        b"endpoint=default/pod-1; address=127.0.1.2:8000; total=1.250; runner-up=default/pod-2; margin=0.500; candidates=3"
    )
    assert summary(decided([0.5])) == b"endpoint=default/pod-0; address=127.0.1.1:8000; total=0.500; candidates=1"
    odd = make_endpoints(1)
    odd.identities = (None, Endpoint("n\ns", "p\u00f6d\x7f", "10.0.0.1", 8000, row=1), None)
    assert summary(decided([0.5], endpoints=odd)).startswith(b"endpoint=n?s/p\\xf6d?; ")
