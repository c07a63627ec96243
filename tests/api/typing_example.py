# SPDX-License-Identifier: Apache-2.0
"""A plugin of every shape as an author would type it. `test_typing.py` has mypy check this file in strict mode.

An `ignore` marks what must be an error: mypy complains when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epp.api import (
    PREFIX_MATCH,
    BoolArray,
    Completion,
    DataKey,
    Decision,
    DoneHook,
    Endpoint,
    EndpointHook,
    Endpoints,
    Filter,
    FloatArray,
    InferenceRequest,
    IntArray,
    Kind,
    Picker,
    PluginContext,
    Producer,
    ProfileHandler,
    ProfileResult,
    Reads,
    ResponseHead,
    ResponseHook,
    RoutedHook,
    Scorer,
    filter,  # noqa: A004 - the field's name
    picker,
    plugin,
    scorer,
)
from epp.testing import FakeClock, make_context, make_endpoints, make_request


@scorer("free-kv", reads=Reads.KV_UTILIZATION)
def free_kv(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    return 1.0 - endpoints.kv_utilization


@filter("short-queues", reads=Reads.WAITING)
def short_queues(request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
    return endpoints.waiting < 10


@picker("first")
def first(request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
    return np.array([0], dtype=np.int64)


@scorer("prefix", reads=Reads.PREFIX_MATCH)
class PrefixScorer:
    @dataclass(frozen=True, slots=True)
    class Parameters:
        weight: float = 1.0

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self.weight = parameters.weight
        self.started_s: float = context.clock()

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        match = request.get(PREFIX_MATCH)
        if match is None:
            return np.zeros(len(endpoints))
        return match.ratio(endpoints) * self.weight


HOPS: DataKey[list[str]] = DataKey("hops")


@plugin("bookkeeper", Kind.PRODUCER, Kind.PROFILE_HANDLER)
class Bookkeeper:
    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
        request.publish(HOPS, [endpoint.id for endpoint in endpoints])

    def pick_profiles(
        self, request: InferenceRequest, profiles: Sequence[str], results: Mapping[str, ProfileResult | None]
    ) -> Sequence[str]:
        return [] if results else profiles

    def primary(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> str:
        return next(iter(results))

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        hops = request.get(HOPS)
        if hops is not None:
            hops.append(decision.target.id)
            hops.append(3)  # type: ignore[arg-type]

    def on_response_headers(
        self, request: InferenceRequest, decision: Decision, response: ResponseHead
    ) -> Mapping[str, str]:
        return {"x-chosen": decision.target.id, "x-status": str(response.status)}

    def on_done(self, request: InferenceRequest, decision: Decision, completion: Completion) -> None:
        seconds: float = completion.duration_s
        assert seconds >= 0

    def on_endpoint_added(self, endpoint: Endpoint) -> None: ...

    def on_endpoint_removed(self, endpoint: Endpoint) -> None: ...


class Misfit:
    def score(self, request: InferenceRequest) -> float:
        return 1.0


def shapes() -> Sequence[object]:
    prefix: Scorer = PrefixScorer(PrefixScorer.Parameters(weight=0.5), make_context(clock=FakeClock()))
    scores: FloatArray = prefix.score(make_request("Hi"), make_endpoints(2, waiting=[1, 2]))
    assert scores.shape == (2,)
    kept: BoolArray = short_queues(make_request(), make_endpoints(1))
    assert kept.all()
    picked: IntArray = first(make_request(), make_endpoints(1), scores)
    assert picked.shape == (1,)
    free_kv(make_request(), [])  # type: ignore[arg-type]
    producer: Producer = Bookkeeper()
    handler: ProfileHandler = Bookkeeper()
    routed: RoutedHook = Bookkeeper()
    responses: ResponseHook = Bookkeeper()
    done: DoneHook = Bookkeeper()
    membership: EndpointHook = Bookkeeper()
    not_a_scorer: Scorer = Misfit()  # type: ignore[assignment]
    not_a_filter: Filter = Bookkeeper()  # type: ignore[assignment]
    not_a_picker: Picker = Bookkeeper()  # type: ignore[assignment]
    return producer, handler, routed, responses, done, membership, not_a_scorer, not_a_filter, not_a_picker
