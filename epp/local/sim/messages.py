# SPDX-License-Identifier: Apache-2.0
"""Anthropic's messages (`/v1/messages`) of a simulated pod, with the fields and events that vLLM sends.

Counts are told as vLLM tells them since it reports its cache: `input_tokens` leaves out what was cached, which is
`cache_read_input_tokens`; `cache_creation_input_tokens` is 0 beside it; both are absent when nothing was cached. A
stream's message_start knows nothing of the cache yet: its `input_tokens` is the whole prompt, and message_delta has the
counts that hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from epp.local.sim.openai import ApiError, Ask, TokenCount, chat_prompt, optional, positive, read_object

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def read_ask(body: bytes) -> Ask:
    """Read a request body. Raises `ApiError` 400 naming the field."""
    data = read_object(body)
    max_tokens = positive(data, "max_tokens")
    if max_tokens is None:
        raise ApiError(400, "max_tokens is required", "max_tokens")
    return Ask(
        chat=True,
        model=optional(data, "model", str) or "",
        prompts=(_prompt(data),),
        max_tokens=max_tokens,
        stream=bool(optional(data, "stream", bool)),
    )


def _prompt(data: Mapping[str, Any]) -> bytes:
    messages, system = data.get("messages"), data.get("system")
    if system and isinstance(messages, list) and messages:
        messages = [{"role": "system", "content": system}, *messages]
    return chat_prompt(messages, data.get("tools"))


def error_body(error: ApiError) -> bytes:
    """Anthropic's envelope with vLLM's names of errors."""
    told = orjson.loads(error.body())["error"]
    return orjson.dumps({"type": "error", "error": {"type": told["type"], "message": told["message"]}})


def _usage(count: TokenCount) -> dict[str, int]:
    usage = {"input_tokens": count.prompt - count.cached, "output_tokens": count.completion}
    if count.cached:
        usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": count.cached}
    return usage


class Answer:
    """Writes one request's answer: whole, or as events of a stream."""

    def __init__(self, ask: Ask, request_id: str, created_s: int) -> None:
        self._model = ask.model
        self._id = f"chatcmpl-{request_id}"
        self._reason = "stop"

    def whole(self, texts: Sequence[str], reasons: Sequence[str], count: TokenCount) -> bytes:
        """The complete message."""
        return orjson.dumps(
            {
                "id": self._id,
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": texts[0]}],
                "model": self._model,
                "stop_reason": _STOP_REASONS[reasons[0]],
                "usage": _usage(count),
            }
        )

    def beginning(self) -> bytes:
        """Nothing is said before the first token."""
        return b""

    def opening(self, index: int, count: TokenCount) -> bytes:
        """message_start, without type and role, as vLLM sends it; and the begin of the text."""
        message: dict[str, Any] = {
            "id": self._id,
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": count.prompt, "output_tokens": 0},
        }
        block = {"content_block": {"type": "text", "text": ""}, "index": index}
        return _event("message_start", message=message) + _event("content_block_start", **block)

    def chunk(self, index: int, text: str, reason: str | None, count: TokenCount) -> bytes:
        """Some text; the reason is told at the end."""
        self._reason = reason or self._reason
        return _event("content_block_delta", delta={"type": "text_delta", "text": text}, index=index)

    def closing(self, count: TokenCount) -> bytes:
        """The end of the text, the counts, the end."""
        delta = {"stop_reason": _STOP_REASONS[self._reason]}
        events = (
            _event("content_block_stop", index=0),
            _event("message_delta", delta=delta, usage=_usage(count)),
            _event("message_stop"),
        )
        return b"".join(events)


def _event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **members}))
