# SPDX-License-Identifier: Apache-2.0
"""The life of one request, from Envoy's first message to the release of what it held. Read this file first.

    Life.request            the request is here as far as Envoy shows it: headers, and the body if there is one
      read                  bytes -> InferenceRequest, once; which model to ask for (epp.requests)
      admit                 the sheddable are refused while the pool is saturated (plugins)
      candidates            the pool, or the subset Envoy names                   (epp.endpoints)
      producers             compute what scorers read; only here may it wait      (plugins)
      schedule              filters, scorers, picker -> Decision                  (epp.scheduling)
      charge                book the choice on the endpoint: the lease            (epp.endpoints)
    Life.response_headers   status seen; the endpoint has the request
    Life.response_body      first byte, tokens, usage
    Life.response_end       what plugins tell Envoy's filters of a complete answer  (plugins)
    Life.closed             release, exactly once, on every way out; a response that goes on unwatched is
                            handed to epp.director.unwatched, which releases when its end is known

Invariants: from reading the candidates to charging the chosen one nothing awaits, so two requests of one burst never
see the same picture. Whatever fails, the request is answered with one line in the error envelope, and nothing else is
disturbed. The body's bytes are forwarded as they came, but for the model's name where another one is asked for, and
`include_usage` where a plugin wishes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from epp.contract.decision import Decision
from epp.contract.endpoints import Endpoints
from epp.contract.errors import Internal, RequestError
from epp.contract.plugins import Producer, UsageWish
from epp.contract.requests import Cause, Completion, InferenceRequest, ResponseEnd, ResponseHead
from epp.director.admission import admit
from epp.director.ends import told_metadata
from epp.director.filters import Filter, filter_of
from epp.director.headers import DROPPED_REASON, PLAIN_ANSWER, UPSTREAM_TIME, WENT_INTO_RESPONSE, echo
from epp.director.heads import added_headers
from epp.director.held import Held
from epp.director.producing import finish, produce
from epp.director.reading import asking, plain_body, read_request
from epp.director.response import Response
from epp.director.telling import DECISION, summary, with_scores
from epp.director.unwatched import UNREACHED_S
from epp.endpoints.lease import Lease
from epp.extproc import End, HeaderList, HttpRequest, Immediate, Outcome, Route, Watch
from epp.observe.recorder import Record, Series
from epp.requests.encoding import decode, is_encoded
from epp.scheduling.guard import Guarded

if TYPE_CHECKING:
    from epp.director.director import Director

log = logging.getLogger("epp.director")

FAILED_STATUS = 400
"""From here on a response is short: its end is not waited for when only its headers are watched."""
INLINE_DECODE_BYTES = 64 * 1024
"""A compressed body longer than this is inflated in a thread."""
_CAUSES = {
    End.COMPLETE: Cause.COMPLETE,
    End.UNWATCHED: Cause.COMPLETE,
    End.GONE: Cause.CLIENT_GONE,
    End.FAILED: Cause.ERROR,
}
_NO_METADATA: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class Life:
    """One HTTP request, as `extproc.Handler`."""

    __slots__ = (
        "_decision", "_director", "_filter", "_lease", "_metadata", "_new_body", "_new_id", "_plan",
        "_received_s", "_record", "_request", "_response", "_series", "_watch", "_wish",
    )  # fmt: skip

    def __init__(self, director: Director) -> None:
        self._director = director
        self._plan = director.plan
        self._received_s = director.clock()
        self._request: InferenceRequest | None = None
        self._decision: Decision | None = None
        self._record: Record | None = None
        self._lease: Lease | None = None
        self._series: Series | None = None
        self._response: Response | None = None
        self._metadata: Mapping[str, Mapping[str, Any]] = _NO_METADATA
        self._new_id = False
        self._new_body: bytes | None = None
        self._filter: Filter | None = None
        self._wish = UsageWish.NEVER
        self._watch = Watch.BODY

    def request(self, http: HttpRequest) -> Outcome | Awaitable[Outcome]:
        """Read it, choose, charge; an error becomes the envelope."""
        try:
            encoding = http.headers.get("content-encoding") if http.body else None
            if is_encoded(encoding) and len(http.body or b"") > INLINE_DECODE_BYTES:
                return self._decode_and_route(http, encoding or "")
            return self._route(http, self._read(http, plain_body(http, self._director.settings.body_limit_bytes)))
        except Exception as error:
            return self._answer_to(error)

    async def _decode_and_route(self, http: HttpRequest, encoding: str) -> Outcome:
        try:
            limit = self._director.settings.body_limit_bytes
            body = await asyncio.to_thread(decode, http.body or b"", encoding, limit)
            outcome = self._route(http, self._read(http, body))
            return await outcome if isinstance(outcome, Awaitable) else outcome
        except Exception as error:
            return self._answer_to(error)

    def _read(self, http: HttpRequest, body: bytes | None) -> InferenceRequest:
        request_id = http.headers.get("x-request-id")
        if not request_id:
            request_id = self._director.new_request_id()
            self._new_id = True
        parser, received_s = self._plan.parser, self._received_s
        request, self._new_body = read_request(self._director, parser, http, body, request_id, received_s)
        self._request = request
        self._series = self._director.recorder.started(request)
        return request

    def _route(self, http: HttpRequest, request: InferenceRequest) -> Outcome | Awaitable[Outcome]:
        if request.priority < 0:
            admit(self._director, self._plan)
        if self._new_body is not None and self._director.answer_seen(http):
            # The answer names the endpoint's model, so it must be seen to its end.
            self._watch = Watch.BODY
        elif self._plan.watch is not Watch.BODY:
            self._watch = self._director.watch(http, request, self._plan.watch)
        if self._plan.follows_ends and self._director.end_seen(http) and self._watch is Watch.BODY:
            wish = self._plan.usage_wish
            self._new_body, self._wish = asking(self._director, wish, http, request, self._new_body)
        candidates = self._director.candidates(http)
        for position, guarded in enumerate(self._plan.producers):
            waiting = produce(guarded, request, candidates)
            if waiting is not None:
                return self._produce_and_route(http, request, guarded, waiting, position + 1)
        return self._choose(request, candidates)

    async def _produce_and_route(
        self, http: HttpRequest, request: InferenceRequest, guarded: Guarded[Producer], waiting: Awaitable[None],
        position: int,
    ) -> Outcome:  # fmt: skip
        try:
            await finish(guarded, waiting)
            for later in self._plan.producers[position:]:
                more = produce(later, request, self._director.candidates(http))
                if more is not None:
                    await finish(later, more)
            # What was read before the wait is old: choose from the candidates of now.
            return self._choose(request, self._director.candidates(http))
        except Exception as error:
            return self._answer_to(error)

    def _choose(self, request: InferenceRequest, candidates: Endpoints) -> Route:
        director, plan = self._director, self._plan
        began_s = director.clock()
        try:
            decision = plan.scheduler.schedule(request, candidates)
        except RequestError:
            director.recorder.unscheduled(director.clock() - began_s, request)
            raise
        target = decision.target
        tokens = float(request.prompt_tokens)
        match = request.get(plan.prefix_key)
        if match is not None:
            tokens = match.uncached_tokens(target.row, request.prompt_tokens)
        self._decision = decision
        self._lease = director.pool.charge(target, tokens)
        for hook in plan.routed_hooks:
            try:
                hook.plugin.on_routed(request, decision)
            except Exception as error:
                hook.failed(error)
        self._record = director.recorder.scheduled(director.clock() - began_s, request, decision, tokens)
        return self._answer(request, decision)

    def _answer(self, request: InferenceRequest, decision: Decision) -> Route:
        director = self._director
        addresses = ",".join([endpoint.address for endpoint in decision.result.targets])
        route = director.route_to(addresses, self._watch, bool(self._plan.end_hooks))
        settings = director.settings
        hooks, body = self._plan.response_hooks, self._new_body
        # What somebody wants to know the tokens of must be readable, also where nothing had to be asked for them.
        read = self._plan.end_hooks or self._wish is not UsageWish.NEVER
        plain = read and "accept-encoding" in request.headers
        if not (self._new_id or settings.echo_headers or settings.emit_scores or hooks or plain or body is not None):
            return route
        self._new_body = None
        headers = list(route.set_headers)
        if self._new_id:
            headers.append(("x-request-id", request.request_id.encode()))
        if settings.echo_headers:
            headers.extend(echo(request.headers))
        if plain:
            headers.append(PLAIN_ANSWER)
        metadata = route.metadata
        if settings.emit_scores:
            metadata = with_scores(metadata, settings.metadata_namespace, decision)
        take_metadata = self._take_metadata if hooks else None
        return Route(
            headers, route.remove_headers, metadata, body, self._watch, take_metadata=take_metadata, tells=route.tells
        )

    def _answer_to(self, error: Exception) -> Immediate:
        if isinstance(error, RequestError):
            return self._refuse(error)
        log.error("request failed: %r", error, exc_info=error)
        return self._refuse(Internal("the endpoint picker failed on this request; its log says why"))

    def _refuse(self, error: RequestError) -> Immediate:
        self._director.recorder.refused(error, self._request, self._series)
        self._series = None
        headers = [(DROPPED_REASON, error.reason.encode())] if error.reason else []
        return Immediate(error.status, f"inference error: {error.code} - {error}".encode(), headers, error.code)

    def _take_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        self._metadata = metadata

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        """The endpoint answered."""
        director, lease = self._director, self._lease
        self._response = response = Response(headers)
        request, hides = self._request, self._wish is UsageWish.ASK_AND_HIDE
        if request is not None and (hides or request.target_model != request.model):
            self._filter = filter_of(director, request, response, hides)
        if lease is not None:
            if response.status == 503 and UPSTREAM_TIME not in headers:
                # Envoy could not reach the endpoint, so nobody else should be sent there for now.
                director.pool.suspect(lease.endpoint, UNREACHED_S)
            if self._watch is Watch.HEADERS:
                response.first_byte_s = director.clock() - self._received_s
                lease.first_byte()
        settings, hooks = director.settings, self._plan.response_hooks
        if not (settings.echo_headers or settings.emit_decision or hooks):
            return WENT_INTO_RESPONSE
        told = [*WENT_INTO_RESPONSE, *(echo(headers) if settings.echo_headers else ())]
        if hooks and request is not None and self._decision is not None:
            head = ResponseHead(response.status, headers, self._metadata)
            told += added_headers(hooks, request, self._decision, head)
        if settings.emit_decision and self._decision is not None and self._plan.watch is not Watch.NOTHING:
            told.append((DECISION, summary(self._decision)))
        return told

    def response_body(self, chunk: bytes, end: bool) -> bytes | None:
        """A piece of the answer passes by. Where another model was asked for, the client's name of it is put back;
        what it did not ask for is taken out."""
        if chunk and self._response is not None:
            at_s = self._director.clock() - self._received_s
            if self._response.piece(chunk, at_s, self._series) and self._lease is not None:
                self._lease.first_byte()
        return None if self._filter is None else self._filter.feed(chunk, end)

    def response_told(self) -> bool:
        """The last event of a stream has come by, and its tokens."""
        return self._response is not None and self._response.told()

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        """The answer is complete."""
        response = self._response
        if self._request is None:
            return _NO_METADATA
        status, usage = (None, None) if response is None else (response.status, response.usage())
        return told_metadata(self._plan.end_hooks, self._request, ResponseEnd(status, usage))

    def closed(self, end: End) -> None:
        """Release what was held, and tell how it ended."""
        if self._lease is None or self._decision is None or self._request is None:
            if self._series is not None:
                self._series.finished(None, False)
            return
        response = self._response
        if end is End.UNWATCHED and (response is None or response.status is None or response.status < FAILED_STATUS):
            self._director.unwatched.hold(self._held(self._request, self._decision, self._lease))
            return
        self._lease.release()
        completion = Completion(
            cause=_CAUSES[end],
            reached_endpoint=response is not None,
            status=response.status if response is not None else None,
            usage=response.usage() if response is not None else None,
            duration_s=self._director.clock() - self._received_s,
            first_byte_s=response.first_byte_s if response is not None else None,
            response_bytes=response.body_bytes if response is not None else 0,
        )
        for hook in self._plan.done_hooks:
            try:
                hook.plugin.on_done(self._request, self._decision, completion)
            except Exception as error:
                hook.failed(error)
        streaming = response is not None and response.streaming
        self._director.recorder.finished(self._request, self._series, completion, streaming, self._record)
        if self._watch is not self._plan.watch:
            self._director.unwatched.learn(self._request, completion, streaming)

    def _held(self, request: InferenceRequest, decision: Decision, lease: Lease) -> Held:
        response, hooks = self._response, self._plan.done_hooks
        return Held(
            request, decision, lease, hooks, self._record, self._series,
            streaming=request.stream if response is None or response.status is None else response.streaming,
            status=response.status if response is not None else None,
            first_byte_s=response.first_byte_s if response is not None else None,
        )  # fmt: skip
