# SPDX-License-Identifier: Apache-2.0
"""Requests that go on without us: how their end becomes known, and what is done then.

With `--response-phase` headers or release, Envoy tells us nothing of a response after the phase we asked for. What the
request holds is then released by whatever says first that it ended:

    log             Envoy's access log: the truth, a moment late
    estimate        a learned duration (epp.director.estimate), while no log reports our requests
    reconciliation  the endpoint has fewer requests, waiting and running, than we think: the oldest surplus is gone
    backstop        many times the estimate, while a log reports but this request's entry was lost
    removal         the endpoint left the pool
    overflow        more than `MOST_HELD` are held: the oldest goes

Invariants: each request's end is told exactly once; the lease is released in the same step; nothing waits for these
requests. Without the log an end is `Cause.UNKNOWN`, the request counts as one that reached its endpoint, and no
duration or size is made up. All calls are on the event loop's thread; times are the clock's seconds.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from itertools import islice

from epp.accesslog import Ended
from epp.contract.endpoints import Clock, Endpoint
from epp.contract.requests import Cause, Completion, InferenceRequest
from epp.contract.signals import Sample
from epp.director.estimate import Estimates
from epp.director.held import TICK_S, Held, HeldTable
from epp.endpoints.pool import Pool
from epp.extproc import Watch
from epp.observe.recorder import Recorder

MOST_HELD = 20_000
"""Each holds its decision: 4 KB where there are 4 endpoints, 20 KB where there are 100."""
ARRIVAL_S = 2.0
"""By then an endpoint counts a request that was sent to it, and a scrape has told."""
PATIENCE_S = 10.0
"""How long a surplus must last before it is believed, while a log reports: an entry may only be late."""
LOG_LAG_S = 2.0
"""How late an entry may come after the request it tells of."""
LOG_LOST_S = 10.0
"""A log that is gone for longer is not waited for any more."""
BACKSTOP_TIMES = 10.0
BACKSTOP_LEAST_S = 60.0
BACKSTOP_MOST_S = 3600.0
UNREACHED_S = 1.0
"""How long an endpoint to which no connection could be made is avoided."""

Later = Callable[[float, Callable[[], None]], object]
"""An event loop's `call_later`."""


class Source(enum.Enum):
    """What said that a request ended; see the module."""

    LOG = "log"
    ESTIMATE = "estimate"
    RECONCILIATION = "reconciliation"
    BACKSTOP = "backstop"
    REMOVAL = "removal"
    OVERFLOW = "overflow"


class Unwatched:
    """Holds them. A sink of the access log, and an `EndpointHook`.

    * ends: how many, by source; drift: by endpoint id, what we hold there minus what it said it has
    * most_held: the bound of the table
    """

    def __init__(self, pool: Pool, recorder: Recorder, clock: Clock, later: Later, most_held: int = MOST_HELD) -> None:
        self.ends = dict.fromkeys(Source, 0)
        self.drift: dict[str, float] = {}
        self._pool = pool
        self._recorder = recorder
        self._clock = clock
        self._later = later
        self._most_held = most_held
        self._table = HeldTable()
        self._estimates = Estimates()
        self._surplus: dict[int, tuple[float, int]] = {}
        """By generation: since when there is one, and the least it was."""
        self._ticking = False
        self._streams = 0
        self._lost_s = -math.inf
        self._reported = self._was_reporting = False

    def __len__(self) -> int:
        return len(self._table)

    @property
    def reporting(self) -> bool:
        """Whether an access log is connected, or was a moment ago, and has told of a request of ours."""
        return self._reported and (self._streams > 0 or self._clock() - self._lost_s < LOG_LOST_S)

    def watch(self, request: InferenceRequest, wanted: Watch) -> Watch:
        """How much of this request's response to watch: what the plan wants, or all of it in order to learn."""
        return Watch.BODY if self._estimates.of(request.target_model).wants_next() else wanted

    def learn(self, request: InferenceRequest, completion: Completion, streaming: bool) -> None:
        """A request that was watched to its end is over."""
        self._estimates.of(request.target_model).learn(completion, request.max_output_tokens, streaming)

    def hold(self, held: Held) -> None:
        """The request goes on without us from here."""
        if len(self._table) >= self._most_held:
            oldest = self._table.oldest()
            assert oldest is not None
            self._assume(oldest, Source.OVERFLOW)
        estimate = self._estimates.of(held.request.target_model)
        now_s = self._clock()
        took_s = first_byte_s = estimate.first_byte_s if held.status is None else 0.0
        # An answer that is not streamed is complete when its headers come.
        if held.status is None or held.streaming:
            took_s += estimate.generation_s(held.request.max_output_tokens)
        held.since_s = now_s
        held.estimated_s = now_s + took_s
        held.backstop_s = now_s + min(max(took_s * BACKSTOP_TIMES, BACKSTOP_LEAST_S), BACKSTOP_MOST_S)
        self._table.put(held, now_s, now_s + max(first_byte_s, TICK_S))
        if not self._ticking:
            self._ticking = True
            self._later(TICK_S, self._tick)

    def ended(self, end: Ended) -> bool:
        """The access log tells of a request; whether it is one of those held."""
        held = self._table.find(end.request_id, end.address, self._is_endpoint)
        if held is None:
            return False
        self._reported = True
        if end.unreachable:
            self._pool.suspect(held.lease.endpoint, UNREACHED_S)
        duration_s = end.duration_s if end.duration_s is not None else self._clock() - held.request.received_s
        if end.cause is Cause.COMPLETE and end.status is not None and end.status < 300:
            estimate = self._estimates.of(held.request.target_model)
            estimate.learn_duration(duration_s, held.request.max_output_tokens)
        completion = Completion(
            cause=end.cause,
            reached_endpoint=end.reached,
            status=end.status,
            usage=None,
            duration_s=duration_s,
            first_byte_s=end.first_byte_s,
            response_bytes=end.response_bytes,
        )
        self._end(held, completion, Source.LOG)
        return True

    def log_streams(self, count: int) -> None:
        """So many access logs are connected."""
        if count and not self._streams and self._clock() - self._lost_s >= LOG_LOST_S:
            self._reported = False
        if self._streams and not count:
            self._lost_s = self._clock()
        self._streams = count

    def sampled(self, endpoint: Endpoint, sample: Sample) -> None:
        """`endpoint` said how many requests it has. It cannot be working on more of ours than that."""
        idle = not len(self._table) and endpoint.id not in self.drift
        if idle or sample.waiting is None or sample.running is None:
            return
        generation = endpoint.generation
        has = math.ceil(sample.waiting + sample.running)
        held = self._table.on(generation)
        self.drift[endpoint.id] = float(len(held) - has)
        # The many samples that show no surplus end here.
        if len(held) <= has:
            self._surplus.pop(generation, None)
            return
        now_s = self._clock()
        young = 0
        for one in reversed(held):
            if one.since_s <= now_s - ARRIVAL_S:
                break
            young += 1
        surplus = len(held) - young - has
        if surplus <= 0:
            self._surplus.pop(generation, None)
            return
        since_s, least = self._surplus.get(generation, (now_s, surplus))
        least = min(least, surplus)
        if self.reporting and now_s - since_s < PATIENCE_S:
            self._surplus[generation] = (since_s, least)
            return
        self._surplus.pop(generation, None)
        for one in list(islice(held, least)):
            self._assume(one, Source.RECONCILIATION)
        self.drift[endpoint.id] = float(len(self._table.on(generation)) - has)

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """Nothing is held there yet."""

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """Leases on it are void."""
        for held in list(self._table.on(endpoint.generation)):
            self._assume(held, Source.REMOVAL)
        self._surplus.pop(endpoint.generation, None)
        self.drift.pop(endpoint.id, None)

    def _tick(self) -> None:
        reporting = self.reporting
        if self._was_reporting and not reporting:
            # The log is gone: what waited for it is due by its estimate again.
            for held in self._table:
                if held.begun:
                    self._table.move(held, held.estimated_s)
        self._was_reporting = reporting
        now_s = self._clock()
        try:
            for held in self._table.due(now_s):
                self._due(held, now_s, reporting)
        finally:
            self._ticking = len(self._table) > 0
            if self._ticking:
                self._later(TICK_S, self._tick)

    def _due(self, held: Held, now_s: float, reporting: bool) -> None:
        if not held.begun:
            # The prompt must be computed by now; its text is held no longer than it is needed.
            held.begun = True
            held.lease.first_byte()
            held.request.prompts = ()
        if reporting:
            last_s = held.backstop_s
        else:
            # A log that is connected gets the chance to show that it reports our requests.
            last_s = held.estimated_s + (LOG_LAG_S if self._streams else 0.0)
        if last_s > now_s:
            self._table.move(held, last_s)
        else:
            self._assume(held, Source.BACKSTOP if reporting else Source.ESTIMATE)

    def _assume(self, held: Held, source: Source) -> None:
        """It ended, or must be taken as ended; nobody saw how."""
        completion = Completion(
            cause=Cause.UNKNOWN,
            reached_endpoint=True,
            status=held.status,
            usage=None,
            duration_s=self._clock() - held.request.received_s,
            first_byte_s=held.first_byte_s,
            response_bytes=0,
        )
        self._end(held, completion, source)

    def _end(self, held: Held, completion: Completion, source: Source) -> None:
        self._table.remove(held)
        held.lease.release()
        self.ends[source] += 1
        for hook in held.hooks:
            try:
                hook.plugin.on_done(held.request, held.decision, completion)
            except Exception as error:
                hook.failed(error)
        self._recorder.finished(held.request, held.series, completion, held.streaming, held.record, source.value)

    def _is_endpoint(self, address: str) -> bool:
        return self._pool.has_address(address)
