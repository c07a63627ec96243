# SPDX-License-Identifier: Apache-2.0
"""The APIs by which a simulated pod generates: path -> how requests are read, answers written, errors told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from epp.local.sim import messages, responses
from epp.local.sim.openai import Answer, ApiError, Ask, TokenCount, read_ask

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
MESSAGES_PATH = "/v1/messages"
RESPONSES_PATH = "/v1/responses"


class Writer(Protocol):
    """Writes one request's answer: `whole`, or the others in this order. Pieces of a stream are whole SSE events."""

    def whole(self, texts: Sequence[str], reasons: Sequence[str], count: TokenCount) -> bytes:
        """The complete answer; one text and one finish reason per choice."""

    def beginning(self) -> bytes:
        """What a stream says before anything is generated."""

    def opening(self, index: int, count: TokenCount) -> bytes:
        """What comes before the first token of a choice."""

    def chunk(self, index: int, text: str, reason: str | None, count: TokenCount) -> bytes:
        """Some text of one choice; `reason` with the last of it."""

    def closing(self, count: TokenCount) -> bytes:
        """The end of a stream."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API. `read` raises `ApiError`; `writer` takes the request, its id, and the Unix time in seconds."""

    read: Callable[[bytes], Ask]
    writer: Callable[[Ask, str, int], Writer]
    error: Callable[[ApiError], bytes] = ApiError.body


APIS: Mapping[str, Api] = {
    CHAT_PATH: Api(partial(read_ask, chat=True), Answer),
    COMPLETIONS_PATH: Api(partial(read_ask, chat=False), Answer),
    MESSAGES_PATH: Api(messages.read_ask, messages.Answer, messages.error_body),
    RESPONSES_PATH: Api(responses.read_ask, responses.Answer),
}
"""By path."""
