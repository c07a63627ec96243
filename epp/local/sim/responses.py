# SPDX-License-Identifier: Apache-2.0
"""OpenAI's responses (`/v1/responses`) of a simulated pod, with the fields and events that vLLM sends.

As with vLLM: a stream begins before anything is generated, has no `[DONE]`, and ends with `response.completed` also
where `max_output_tokens` cut the answer short (its `status` is `incomplete` then). Nothing is stored: no `background`,
no `previous_response_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from epp.local.sim.openai import ApiError, Ask, TokenCount, chat_prompt, optional, positive, read_object

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "metadata": None,
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "reasoning": None,
    "service_tier": "auto",
    "text": None,
    "truncation": "disabled",
    "user": None,
}
"""What an answer repeats of its request, and what it says where that says nothing."""


def read_ask(body: bytes) -> Ask:
    """Read a request body. Raises `ApiError` 400 or 404 naming the field."""
    data = read_object(body)
    if optional(data, "background", bool):
        raise ApiError(400, "background can only be used when `store` is true, and nothing is stored", "background")
    previous = optional(data, "previous_response_id", str)
    if previous:
        raise ApiError(404, f"Response with id '{previous}' not found.", "previous_response_id")
    return Ask(
        chat=True,
        model=optional(data, "model", str) or "",
        prompts=(_prompt(data),),
        max_tokens=positive(data, "max_output_tokens"),
        ignore_eos=bool(optional(data, "ignore_eos", bool)),
        stream=bool(optional(data, "stream", bool)),
        cache_salt=optional(data, "cache_salt", str) or "",
        echo={name: usual if data.get(name) is None else data[name] for name, usual in _ECHOED.items()},
    )


def _prompt(data: Mapping[str, Any]) -> bytes:
    given, instructions = data.get("input"), optional(data, "instructions", str)
    if isinstance(given, str) and given:
        messages = [{"role": "user", "content": given}]
    elif isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        messages = [_message(item) for item in given]
    else:
        raise ApiError(400, "input must be a text or a list of items", "input")
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    return chat_prompt(messages, data.get("tools"))


def _message(item: dict[str, Any]) -> dict[str, Any]:
    """An item as a message: calls of tools and the like are their JSON."""
    return item if "role" in item else {"role": str(item.get("type")), "content": orjson.dumps(item).decode()}


def _usage(count: TokenCount) -> dict[str, Any]:
    return {
        "input_tokens": count.prompt,
        "input_tokens_details": {
            "cached_tokens": count.cached,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": count.completion,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": count.prompt + count.completion,
    }


class Answer:
    """Writes one request's answer: whole, or as events of a stream."""

    def __init__(self, ask: Ask, request_id: str, created_s: int) -> None:
        self._ask = ask
        self._id = f"resp_{request_id}"
        self._item_id = f"msg_{request_id}"
        self._created_s = created_s
        self._told = 0
        self._text: list[str] = []
        self._reason = "stop"

    def whole(self, texts: Sequence[str], reasons: Sequence[str], count: TokenCount) -> bytes:
        """The complete response."""
        return orjson.dumps(self._response(texts[0], _status(reasons[0]), count))

    def beginning(self) -> bytes:
        """The response is there, and being worked on."""
        response = self._response(None, "in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def opening(self, index: int, count: TokenCount) -> bytes:
        """The message, and in it the text, begin."""
        item = {**self._item(None), "status": "in_progress"}
        return self._event("response.output_item.added", output_index=index, item=item) + self._event(
            "response.content_part.added", **self._place(index), part={**_part(""), "logprobs": []}
        )

    def chunk(self, index: int, text: str, reason: str | None, count: TokenCount) -> bytes:
        """Some text; with the last of it the text and the message end."""
        self._text.append(text)
        delta = self._event("response.output_text.delta", **self._place(index), delta=text, logprobs=[])
        if reason is None:
            return delta
        self._reason, whole = reason, "".join(self._text)
        events = (
            delta,
            self._event("response.output_text.done", **self._place(index), text=whole, logprobs=[]),
            self._event("response.content_part.done", **self._place(index), part={**_part(whole), "logprobs": None}),
            self._event("response.output_item.done", output_index=index, item=self._item(whole)),
        )
        return b"".join(events)

    def closing(self, count: TokenCount) -> bytes:
        """The whole response once more, with its counts."""
        response = self._response("".join(self._text), _status(self._reason), count)
        return self._event("response.completed", response=response)

    def _response(self, text: str | None, status: str, count: TokenCount | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "created_at": self._created_s,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self._ask.model,
            "object": "response",
            "output": [] if text is None else [self._item(text)],
            # Before the counts, as vLLM orders it: what a client has repeated is not the last that is said.
            **self._ask.echo,
            "background": False,
            "previous_response_id": None,
            "prompt": None,
            "status": status,
            "top_logprobs": None,
            "usage": None if count is None else _usage(count),
            "input_messages": None,
            "output_messages": None,
        }

    def _item(self, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [{**_part(text), "logprobs": None}]
        return {"id": self._item_id, "content": content, "role": "assistant", "status": "completed", "type": "message"}

    def _place(self, index: int) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._item_id, "output_index": index}

    def _event(self, kind: str, **members: Any) -> bytes:
        body = {**members, "sequence_number": self._told, "type": kind}
        self._told += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(body))


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text"}


def _status(reason: str) -> str:
    return "incomplete" if reason == "length" else "completed"
