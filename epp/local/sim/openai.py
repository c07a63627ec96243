# SPDX-License-Identifier: Apache-2.0
"""The OpenAI shapes of a simulated pod: request bodies in, answers, chunks and errors out, with vLLM's fields.

Prompts become bytes: a chat is rendered with the ChatML template, token ids are four bytes each. Four bytes are one
token. `cached_tokens` is told as vLLM does: `prompt_tokens_details` is null when nothing was cached.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

MAX_CHOICES = 64
"""Most answers to one prompt in one request."""


class ApiError(Exception):
    """Answered with `status` and vLLM's error body."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> bytes:
        """`{"error": {...}}` as vLLM writes it."""
        kind = {404: "NotFoundError", 500: "InternalServerError"}.get(self.status, "BadRequestError")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the pod understands it. `prompts` has one entry per choice: each prompt comes `n` times; `echo` are
    members of the request that its answer repeats."""

    chat: bool
    model: str
    prompts: tuple[bytes, ...]
    max_tokens: int | None
    n: int = 1
    ignore_eos: bool = False
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    cache_salt: str = ""
    echo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The numbers of a usage object."""

    prompt: int
    completion: int
    cached: int

    def usage(self) -> dict[str, Any]:
        """The `usage` object of a whole answer."""
        return {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached} if self.cached else None,
        }


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a request body is. Raises `ApiError` 400."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ApiError(400, "the body must be a JSON object")
    return data


def read_ask(body: bytes, *, chat: bool) -> Ask:
    """Read a request body. Raises `ApiError` 400 naming the field."""
    data = read_object(body)
    options = optional(data, "stream_options", dict) or {}
    stream = bool(optional(data, "stream", bool))
    if options and not stream:
        raise ApiError(400, "stream_options can only be set when stream is true", "stream_options")
    prompts = [chat_prompt(data.get("messages"), data.get("tools"))] if chat else texts(data.get("prompt"), "prompt")
    choices = positive(data, "n") or 1
    if choices > MAX_CHOICES:
        raise ApiError(400, f"n must be at most {MAX_CHOICES}, got {choices}", "n")
    name = "max_completion_tokens" if chat and data.get("max_completion_tokens") is not None else "max_tokens"
    return Ask(
        chat=chat,
        model=optional(data, "model", str) or "",
        prompts=tuple(prompt for prompt in prompts for _ in range(choices)),
        # The legacy completions API generates 16 tokens unless told otherwise.
        max_tokens=positive(data, name) or (None if chat else 16),
        n=choices,
        ignore_eos=bool(optional(data, "ignore_eos", bool)),
        stream=stream,
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True and options.get("include_usage") is True,
        cache_salt=optional(data, "cache_salt", str) or "",
    )


def optional(data: Mapping[str, Any], name: str, kind: type) -> Any:
    """A member of this type, or None. Raises `ApiError` 400 naming it."""
    value = data.get(name)
    if value is not None and not isinstance(value, kind):
        raise ApiError(400, f"{name} must be of type {kind.__name__}", name)
    return value


def positive(data: Mapping[str, Any], name: str) -> int | None:
    """A number from 1, or None. Raises `ApiError` 400 naming it."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ApiError(400, f"{name} must be at least 1, got {value!r}", name)
    return value


def chat_prompt(messages: Any, tools: Any) -> bytes:
    """Messages in the ChatML template, the tools before them. Raises `ApiError` 400."""
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with at least one message", "messages")
    parts = []
    if tools:
        parts.append("<|im_start|>tools\n" + orjson.dumps(tools).decode() + "<|im_end|>\n")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, "each message must be an object with a role", "messages")
        parts.append(f"<|im_start|>{message['role']}\n{_content(message.get('content'))}<|im_end|>\n")
    parts.append("<|im_start|>assistant\n")
    return "".join(parts).encode()


def _content(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content]
        return "".join(
            t if isinstance(t, str) else orjson.dumps(p).decode() for t, p in zip(texts, content, strict=True)
        )
    raise ApiError(400, "content must be a string or a list of parts", "messages")


def texts(prompt: Any, name: str) -> list[bytes]:
    """What stands for one text or several: strings, or token ids. Raises `ApiError` 400 naming the field `name`."""
    if isinstance(prompt, str):
        return [_text(prompt, name)]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(item, str) for item in prompt):
            return [_text(item, name) for item in prompt]
        if _is_ids(prompt):
            return [_ids(prompt)]
        if all(_is_ids(item) for item in prompt):
            return [_ids(item) for item in prompt]
    raise ApiError(400, f"{name} must be a string, token ids, or a list of either", name)


def _text(prompt: str, name: str) -> bytes:
    if not prompt:
        raise ApiError(400, f"{name} must not be empty", name)
    return prompt.encode()


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i < 1 << 32 for i in value)


def _ids(value: list[int]) -> bytes:
    return array("I", value).tobytes()


class Answer:
    """Writes one request's answer: whole, or as chunks of a stream."""

    def __init__(self, ask: Ask, request_id: str, created_s: int) -> None:
        self._ask = ask
        self._base: dict[str, Any] = {
            "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{request_id}",
            "object": "chat.completion" if ask.chat else "text_completion",
            "created": created_s,
            "model": ask.model,
        }

    def whole(self, texts: Sequence[str], reasons: Sequence[str], count: TokenCount) -> bytes:
        """The complete answer; one text and one finish reason per choice."""
        choice = _chat_choice if self._ask.chat else _text_choice
        body = {
            **self._base,
            "choices": [choice(i, text, reasons[i]) for i, text in enumerate(texts)],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": count.usage(),
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        }
        if not self._ask.chat:
            del body["prompt_logprobs"]
        return orjson.dumps(body)

    def beginning(self) -> bytes:
        """Nothing is said before the first token."""
        return b""

    def opening(self, index: int, count: TokenCount) -> bytes:
        """A chat choice begins with its role; a completion with nothing."""
        if not self._ask.chat:
            return b""
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk([choice], count)

    def chunk(self, index: int, text: str, reason: str | None, count: TokenCount) -> bytes:
        """Some text of one choice; `reason` with the last of it."""
        choice: dict[str, Any] = {"index": index}
        if self._ask.chat:
            choice["delta"] = {"content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": reason}
        if reason is not None:
            choice["stop_reason"] = None
        return self._chunk([choice], count)

    def closing(self, count: TokenCount) -> bytes:
        """The usage chunk if it was asked for, and the end marker."""
        end = b"data: [DONE]\n\n"
        if not self._ask.include_usage:
            return end
        return self._event({**self._stream_base(), "choices": [], "usage": count.usage()}) + end

    def _chunk(self, choices: list[dict[str, Any]], count: TokenCount) -> bytes:
        body = {**self._stream_base(), "choices": choices}
        if self._ask.continuous_usage:
            body["usage"] = count.usage()
        return self._event(body)

    def _stream_base(self) -> dict[str, Any]:
        return self._base if not self._ask.chat else {**self._base, "object": "chat.completion.chunk"}

    @staticmethod
    def _event(body: dict[str, Any]) -> bytes:
        return b"data: " + orjson.dumps(body) + b"\n\n"


def _chat_choice(index: int, text: str, reason: str) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning_content": None,
    }
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason, "stop_reason": None}


def _text_choice(index: int, text: str, reason: str) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": None,
        "prompt_logprobs": None,
    }
