# SPDX-License-Identifier: Apache-2.0
"""Which reader reads which path.

A path is matched by its longest known suffix, so that prefixes a gateway did not strip do no harm. A path nobody
claims is passed through opaque: routed on load alone, its model unknown. Path: `:path`, else `x-original-path`, else
`x-forwarded-path`, else /v1/completions; the query and outer slashes do not count.
"""

from __future__ import annotations

from collections.abc import Mapping

from epp.contract.errors import BadRequest
from epp.requests import bodies
from epp.requests.bodies import Parsed, Reader
from epp.requests.messages import read_messages

OPENAI: Mapping[str, Reader] = {
    "chat/completions": bodies.read_chat,
    "chat/completions/render": bodies.read_chat,
    "completions": bodies.read_completion,
    "completions/render": bodies.read_completion,
    "embeddings": bodies.read_embedding,
    "responses": bodies.read_response,
    "conversations": bodies.read_conversation,
    "images/generations": bodies.read_image,
}
"""Suffixes of the `openai-parser`."""

OPAQUE = Parsed(model="", stream=False, prompts=(), cache_salt="", max_output_tokens=None)
"""What is known of a body that nobody reads."""


def _unread(body: bytes) -> Parsed:
    return OPAQUE


ANTHROPIC: Mapping[str, Reader] = {"messages": read_messages, "messages/count_tokens": _unread}
"""Suffixes of the `anthropic-parser`. Counting tokens generates nothing, so that it goes anywhere."""
ALL: Mapping[str, Reader] = {**OPENAI, **ANTHROPIC}


def request_path(headers: Mapping[str, str]) -> str:
    """The path by which a parser is chosen, without query."""
    path = headers.get(":path") or headers.get("x-original-path") or headers.get("x-forwarded-path")
    return path.partition("?")[0] if path else "/v1/completions"


class Parser:
    """Reads bodies by path. `opaque_allowed`: whether unknown paths pass through (the `passthrough-parser`)."""

    __slots__ = ("_opaque_allowed", "_readers")

    def __init__(self, readers: Mapping[str, Reader] = ALL, *, opaque_allowed: bool = True) -> None:
        self._readers = dict(readers)
        self._opaque_allowed = opaque_allowed

    def parse(self, path: str, body: bytes) -> Parsed:
        """Read `body` as what `path` says it is. Raises `BadRequest`."""
        reader = self._reader(path.strip("/"))
        if reader is not None:
            return reader(body)
        if self._opaque_allowed:
            return OPAQUE
        raise BadRequest(f"no parser registered matching path suffix for: {path}")

    def _reader(self, path: str) -> Reader | None:
        # The last three segments are the longest suffix anybody claims.
        segments = path.split("/")
        for length in (3, 2, 1):
            reader = self._readers.get("/".join(segments[-length:]))
            if reader is not None:
                return reader
        return None
