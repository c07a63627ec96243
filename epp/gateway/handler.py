# SPDX-License-Identifier: Apache-2.0
"""The life of one request in the gateway process.

    request            the path is known; the body names a model -> header x-ai-eg-model, and the route is chosen anew
    response_headers   only for models that are counted here: status seen
    response_body      usage read as it passes by; what the client did not ask for is kept back
    response_end       what the answer cost, as metadata; only of complete 2xx answers
    closed             counted, exactly once

A refused request is answered in the shape of the API it asked, and reaches nobody. Whether there is a route for a
model is Envoy's to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from epp.contract.errors import BodyTooLarge, RequestError
from epp.contract.requests import InferenceRequest, ResponseEnd
from epp.director.response import Response
from epp.extproc import BodyMode, End, HeaderList, HttpRequest, Immediate, Outcome
from epp.gateway import counts
from epp.gateway.counts import Counts
from epp.gateway.models import OTHER, Models, Plan, Served
from epp.gateway.naming import model_in_form, model_in_json
from epp.gateway.paths import Api, Form
from epp.gateway.refusal import Refused, error_answer, model_answer, models_answer
from epp.gateway.refusallog import RefusalLog
from epp.observe.log.limited import limited
from epp.requests.askusage import ask_usage
from epp.requests.encoding import decode, is_encoded
from epp.requests.hideusage import HideUsage

log = logging.getLogger("epp.gateway")

INLINE_DECODE_BYTES = 64 * 1024
"""A compressed body longer than this is inflated in a thread."""
_READS = ("GET", "HEAD")


@dataclass(slots=True)
class Gate:
    """What all requests share. `served` may be exchanged: requests that come later see the new one."""

    served: Served
    counts: Counts
    refusals: RefusalLog


class Passage:
    """One HTTP request, as `extproc.Handler`. `listener`: what Envoy called its listener."""

    __slots__ = ("_api", "_gate", "_headers", "_hide", "_model", "_models", "_outcome", "_plan", "_response", "_served")

    def __init__(self, gate: Gate, listener: str | None) -> None:
        self._gate = gate
        self._served = gate.served
        self._models: Models = gate.served.models(listener)
        self._api: Api | None = None
        self._plan: Plan | None = None
        self._model = ""
        self._headers: Mapping[str, str] = {}
        self._response: Response | None = None
        self._hide: HideUsage | None = None
        self._outcome = ""
        gate.counts.open += 1

    def request(self, http: HttpRequest) -> Outcome | Awaitable[Outcome]:
        """Name the model, or refuse."""
        path = (http.headers.get(":path") or "").partition("?")[0]
        try:
            api = self._served.paths.api(path)
            method = http.headers.get(":method")
            if api is None or method != "POST":
                return self._no_post(path, method, api)
            self._api = api
            body = self._body(http)
            encoding = http.headers.get("content-encoding")
            if not is_encoded(encoding):
                return self._route(http, api, body)
            if len(body) > INLINE_DECODE_BYTES:
                return self._decode_and_route(http, api, path, body, encoding or "")
            return self._route(http, api, decode(body, encoding or "", self._served.body_limit_bytes))
        except Exception as error:
            return self._refuse(error, http, path)

    async def _decode_and_route(self, http: HttpRequest, api: Api, path: str, body: bytes, encoding: str) -> Outcome:
        try:
            plain = await asyncio.to_thread(decode, body, encoding, self._served.body_limit_bytes)
            return self._route(http, api, plain)
        except Exception as error:
            return self._refuse(error, http, path)

    def _no_post(self, path: str, method: str | None, api: Api | None) -> Immediate:
        asked = self._served.paths.asked_model(path) if api is None else None
        if api is None and asked is None:
            raise Refused(
                404, "path_unknown", f"no such path: {limited(path)}; see the API's reference for those there are"
            )
        if asked is None or method not in _READS:
            allowed = "POST" if asked is None else "GET"
            message = f"{limited(path)} takes {allowed}, not {limited(method or 'nothing', 32)}"
            raise Refused(405, "method_not_allowed", message, [("allow", allowed.encode())])
        if asked and asked not in self._models.names:
            raise Refused(
                404, "model_not_found", f"the model {limited(asked)!r} is not served here; GET /v1/models lists them"
            )
        self._outcome = counts.ANSWERED
        return model_answer(asked) if asked else models_answer(self._models.names)

    def _body(self, http: HttpRequest) -> bytes:
        """The body as it came."""
        body, limit_bytes = http.body, self._served.body_limit_bytes
        if http.mode in (BodyMode.NONE, BodyMode.STREAMED):
            message = f"Envoy shows no request bodies (request_body_mode {http.mode.name}); set FULL_DUPLEX_STREAMED"
            raise Refused(500, "body_not_shown", message)
        if http.crowded:
            raise Refused(503, "crowded", "too many request bodies are on their way at once; try again")
        if not http.body_complete or (body is not None and len(body) > limit_bytes):
            raise Refused(413, "body_too_large", f"the body is longer than {limit_bytes} bytes; send a shorter one")
        if not body or http.headers_fixed:
            raise Refused(400, "body_missing", "the request has no body; send one with a field `model`")
        return body

    def _route(self, http: HttpRequest, api: Api, body: bytes) -> Outcome:
        headers = http.headers
        if api.form is Form.JSON:
            model = model_in_json(body)
        else:
            model = model_in_form(body, headers.get("content-type") or "")
        self._model, self._plan = model, (plan := self._models.plan(model))
        if plan.costs is not None:
            self._headers = headers
            asking = ask_usage(body, api.path) if plan.include_usage != "off" else None
            if asking is not None:
                if plan.include_usage == "hidden":
                    self._hide = HideUsage()
                return plan.route(model, asking)
        elif is_encoded(headers.get("content-encoding")) and ask_usage(body, api.path) is not None:
            # The pool's picker counts, but cannot ask for the usage of this stream in a body it would have to pack.
            return plan.route(model, body)
        return self._models.route(model)

    def _refuse(self, error: Exception, http: HttpRequest, path: str) -> Immediate:
        if isinstance(error, Refused):
            refused = error
        elif isinstance(error, BodyTooLarge):
            limit_bytes = self._served.body_limit_bytes
            refused = Refused(
                413, "body_too_large", f"the body inflates to more than {limit_bytes} bytes; send a shorter one"
            )
        elif isinstance(error, RequestError):
            refused = Refused(error.status, "encoding_invalid", str(error))
        else:
            log.error("request failed: %r", error, exc_info=error)
            refused = Refused(500, "internal", "the gateway failed on this request; its log says why")
        self._outcome = counts.REFUSED
        self._gate.counts.refused(refused.code)
        self._gate.refusals.refused(refused, path, http.headers.get("x-request-id") or "")
        return error_answer(refused, self._served.paths.anthropic(path))

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        """The answer begins."""
        self._response = response = Response(headers)
        if self._hide is not None and not (response.streaming and response.readable):
            self._hide = None
        return ()

    def response_body(self, chunk: bytes, end: bool) -> bytes | None:
        """A piece of the answer passes by."""
        if chunk and self._response is not None:
            self._response.piece(chunk, 0.0, None)
        return None if self._hide is None else self._hide.feed(chunk, end)

    def response_told(self) -> bool:
        """The last event of a stream has come by, and its tokens."""
        return self._response is not None and self._response.told()

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        """What the answer cost."""
        response, plan = self._response, self._plan
        if response is None or plan is None or plan.costs is None or self._api is None:
            return {}
        usage = response.usage()
        if usage is None and not self._api.tells_usage:
            return {}
        request = InferenceRequest("", self._headers, model=self._model)
        try:
            return plan.costs.on_response_end(request, ResponseEnd(response.status, usage))
        except Exception as error:
            # The answer is on its way to the client: better unbooked than broken off.
            log.error("the costs of an answer could not be made: %r", error, exc_info=error)
            return {}

    def closed(self, end: End) -> None:
        """Count how it ended."""
        self._gate.counts.open -= 1
        plan, response = self._plan, self._response
        outcome = self._outcome
        if not outcome:
            if end is End.UNWATCHED:
                outcome = counts.PASSED
            elif end is End.COMPLETE and response is not None:
                outcome = counts.COMPLETE if _succeeded(response) else counts.FAILED
            else:
                outcome = counts.ABORTED
        self._gate.counts.ended(OTHER if plan is None else plan.label, outcome)


def _succeeded(response: Response) -> bool:
    return response.status is not None and 200 <= response.status < 300
