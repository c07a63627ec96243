# SPDX-License-Identifier: Apache-2.0
"""From what Envoy shows of a request to an `InferenceRequest`, and to the body it is sent with if that is another.

Only a plain body that was read to its end can ask for another model; any other request keeps its own, and why is said
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.contract.aigateway import MODEL_HEADER
from epp.contract.errors import BadRequest, BodyTooLarge, ServiceUnavailable
from epp.contract.plugins import UsageWish
from epp.contract.requests import InferenceRequest
from epp.director.headers import SHOW_BODIES
from epp.director.target import priority_of, target_of
from epp.extproc import BodyMode, HttpRequest
from epp.requests.askusage import ask_usage
from epp.requests.encoding import decode, is_encoded
from epp.requests.parser import OPAQUE, Parser, request_path
from epp.requests.rewrite import with_model

if TYPE_CHECKING:
    from epp.director.director import Director

_BLIND = (BodyMode.NONE, BodyMode.STREAMED)
"""Modes in which a request is routed before its body is seen."""


def plain_body(http: HttpRequest, limit_bytes: int) -> bytes | None:
    """The body without its content-encoding, None when there is none. Raises `RequestError`."""
    body = http.body
    if http.headers_fixed:
        # No endpoint can be named any more; routed nowhere, the answer would make an endpoint look dead.
        raise BadRequest(f"trailers but no body: body mode {http.mode.name} cannot route that; send a body")
    if not body:
        return None
    if http.crowded:
        raise ServiceUnavailable(
            "too many request bodies are on their way at once; try again, or send smaller ones",
            reason="rejected-saturated",
        )
    if len(body) > limit_bytes or (not http.body_complete and http.mode is BodyMode.FULL_DUPLEX_STREAMED):
        raise BodyTooLarge(f"the body is longer than {limit_bytes} bytes; raise --max-body-size")
    encoding = http.headers.get("content-encoding")
    return decode(body, encoding or "", limit_bytes) if is_encoded(encoding) else body


def read_request(
    director: Director, parser: Parser, http: HttpRequest, body: bytes | None, request_id: str, received_s: float
) -> tuple[InferenceRequest, bytes | None]:
    """The request, and its new body when it asks for another model than the client named. `body` is what
    `plain_body` says. Raises `BadRequest`."""
    headers = http.headers
    path = request_path(headers)
    parsed = OPAQUE
    if body is not None:
        try:
            parsed = parser.parse(path, body)
        except BadRequest:
            # A body that Envoy cut short is routed on what can be known: its load.
            if http.body_complete:
                raise
    elif http.mode in _BLIND and headers.get(":method") == "POST":
        director.body_unseen(http.mode)
    model = target = parsed.model or headers.get(MODEL_HEADER, "")
    models, new_body = director.models, None
    asked = target_of(models, headers, model, director.rng)
    if asked != model:
        new_body = _rewritten(director, http, body if parsed is not OPAQUE else None, asked)
        target = model if new_body is None else asked
    fairness = headers.get("x-llm-d-inference-fairness-id") or headers.get("x-gateway-inference-fairness-id")
    request = InferenceRequest(
        request_id=request_id,
        headers=headers,
        path=path,
        model=model,
        target_model=target,
        stream=parsed.stream,
        prompts=parsed.prompts,
        cache_salt=parsed.cache_salt,
        max_output_tokens=parsed.max_output_tokens,
        priority=priority_of(models, headers, model),
        fairness_id=fairness or "default-flow",
        body_bytes=len(http.body or b""),
        received_s=received_s,
    )
    return request, new_body


def _rewritten(director: Director, http: HttpRequest, read: bytes | None, model: str) -> bytes | None:
    """The body that asks for `model`, None when it cannot be. `read`: the body as far as a parser read it."""
    if http.body is None:
        if http.mode in _BLIND and http.headers.get(":method") == "POST":
            director.model_kept(f"Envoy shows no request bodies (request_body_mode {http.mode.name}); {SHOW_BODIES}")
        return None
    if read is None:
        director.model_kept("no parser reads the body, or Envoy cut it; set requestHandler.parsers and its body mode")
    elif read is not http.body:
        director.model_kept("the body has a content-encoding; let clients send it plain")
    elif not http.body_complete:
        director.model_kept(f"Envoy cut the body (request_body_mode {http.mode.name}); raise its buffer limit")
    else:
        return with_model(read, model)
    return None


def asking(
    director: Director, wish: UsageWish, http: HttpRequest, request: InferenceRequest, new_body: bytes | None
) -> tuple[bytes | None, UsageWish]:
    """The body that asks for the tokens of its streamed answer, where `wish` says so and the client does not, and that
    wish; else `new_body`, which is sent on in the place of the client's, and NEVER."""
    if wish is UsageWish.NEVER or http.body is None or not http.body_complete:
        return new_body, UsageWish.NEVER
    if is_encoded(http.headers.get("content-encoding")):
        if request.stream:
            director.say_once("tokens of streamed answers are not asked for where a body has a content-encoding")
        return new_body, UsageWish.NEVER
    body = ask_usage(http.body if new_body is None else new_body, request.path)
    return (new_body, UsageWish.NEVER) if body is None else (body, wish)
