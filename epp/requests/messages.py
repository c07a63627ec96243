# SPDX-License-Identifier: Apache-2.0
"""Anthropic's messages: their body, and the byte stream over which its prefix blocks are hashed.

The stream is that of llm-d's estimate for this API: the JSON of `tools`, the system prompt's text, then per message its
role and its content, without separators. System blocks that begin with `x-anthropic-billing-header` are left out: some
clients put one with a hash of the request in front, and no two prompts would have a beginning in common. (vLLM leaves
them out as well.)
"""

from __future__ import annotations

from typing import Any

import msgspec

from epp.contract.errors import BadRequest
from epp.requests.bodies import Common, Parsed, decode, parsed, read_countless
from epp.requests.countless import is_countless
from epp.requests.prompts import IMAGE_TOKENS, add_asset

_NO_MESSAGE = "invalid messages request: must have at least one message"
_WRONG_SHAPE = "error parsing messages request"
_BILLING = "x-anthropic-billing-header"


class _Block(msgspec.Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw()
    content: Any = None
    source: Any = None


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Block] | None = None


class _Messages(Common):
    messages: list[_Message] | None = None
    system: str | list[_Block] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    max_tokens: Any = None


_decoder = msgspec.json.Decoder(_Messages)


def read_messages(body: bytes) -> Parsed:
    """A request for a message. Raises `BadRequest`."""
    if is_countless(body):
        return read_countless(body, "messages", _NO_MESSAGE)
    read = decode(_decoder, body, _WRONG_SHAPE)
    if not read.messages:
        raise BadRequest(_NO_MESSAGE)
    return parsed(read, (_stream(read),), read.max_tokens)


def _stream(read: _Messages) -> bytes:
    tools = bytes(read.tools)
    out = bytearray() if tools == b"null" else bytearray(tools)
    if isinstance(read.system, str):
        _add_text(out, read.system)
    for block in read.system if isinstance(read.system, list) else ():
        if isinstance(block.text, str) and not block.text.startswith(_BILLING):
            _add_text(out, block.text)
    for message in read.messages or ():
        _add_text(out, message.role)
        if isinstance(message.content, str):
            _add_text(out, message.content)
        for block in message.content if isinstance(message.content, list) else ():
            _add_block(out, block)
    return bytes(out + bytes(-len(out) % 4))


def _add_block(out: bytearray, block: _Block) -> None:
    if block.type == "text":
        _add_text(out, block.text)
    elif block.type == "thinking":
        _add_text(out, block.thinking)
    elif block.type == "tool_use":
        _add_text(out, block.id)
        _add_text(out, block.name)
        out += bytes(block.input)
    elif block.type == "image":
        _add_image(out, block.source)
    elif block.type == "tool_result":
        _add_text(out, block.content)
        for part in block.content if isinstance(block.content, list) else ():
            if isinstance(part, dict) and part.get("type") == "text":
                _add_text(out, part.get("text"))
            elif isinstance(part, dict) and part.get("type") == "image":
                _add_image(out, part.get("source"))


def _add_text(out: bytearray, text: Any) -> None:
    """Clients may leave anything there; what is no text is no part of the prompt."""
    if isinstance(text, str):
        out += text.encode("utf-8", "surrogatepass")


def _add_image(out: bytearray, source: Any) -> None:
    given = source if isinstance(source, dict) else {}
    identity = given.get("url") if given.get("type") == "url" else given.get("data")
    add_asset(out, identity if isinstance(identity, str) else "", IMAGE_TOKENS)
