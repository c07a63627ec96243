# SPDX-License-Identifier: Apache-2.0
"""Anthropic's messages: the prompt stream (specification: plugins 4.4) and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from epp.contract.errors import BadRequest
from epp.requests.parser import ANTHROPIC, OPAQUE, OPENAI, Parser
from epp.requests.prompts import IMAGE_TOKENS
from tests.requests.test_parser import PARSER, mark, padded, parse


def prompt(content: Any, **more: Any) -> bytes:
    [stream] = parse("/v1/messages", messages=[{"role": "user", "content": content}], **more).prompts
    return bytes(stream)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, b"userHi"),
        ({"system": "Be."}, b"Be.userHi"),
        ({"system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}]}, b"userHi"),
        ({"system": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}]}, b"BeuserHi"),
        ({"tools": [{"name": "f"}], "system": "Be."}, b'[{"name":"f"}]Be.userHi'),
        ({"tools": None, "system": None}, b"userHi"),
    ],
)
def test_tools_and_system_come_first(more: dict[str, Any], expected: bytes) -> None:
    assert prompt("Hi", **more) == padded(expected)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "text", "text": "abcd"}, b"abcd"),
        ({"type": "thinking", "thinking": "hmmm", "signature": "s"}, b"hmmm"),
        ({"type": "redacted_thinking", "data": "x"}, b""),
        ({"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}, b't1f{"a":1}'),
        ({"type": "tool_result", "tool_use_id": "t1", "content": "done"}, b"done"),
        ({"type": "tool_result", "content": [{"type": "text", "text": "done"}, 7, {"type": "text"}]}, b"done"),
        (
            {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
            mark("u", IMAGE_TOKENS),
        ),
        ({"type": "image", "source": {"type": "url", "url": "http://i"}}, mark("http://i", IMAGE_TOKENS)),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
            mark("AA", IMAGE_TOKENS),
        ),
        ({"type": "image"}, mark("", IMAGE_TOKENS)),
        ({"type": "text", "text": 7}, b""),
        ({}, b""),
    ],
)
def test_content_blocks(block: dict[str, Any], expected: bytes) -> None:
    assert prompt([block]) == padded(b"user" + expected)


def test_the_other_fields_are_read() -> None:
    parsed = parse("/v1/messages/", messages=[{"role": "user", "content": "Hi"}], max_tokens=9, stream=True)
    assert (parsed.model, parsed.stream, parsed.max_output_tokens) == ("m", True, 9)


def test_counting_tokens_is_not_read() -> None:
    assert parse("/v1/messages/count_tokens", messages=7) is OPAQUE


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model":"m"}', "invalid messages request: must have at least one message"),
        (b'{"model":"m","messages":[]}', "invalid messages request: must have at least one message"),
        (b'{"model":"m","messages":"x"}', "error parsing messages request"),
        (b'{"model":"m","messages":[{"role":1}]}', "error parsing messages request"),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model not found in request body"),
        (b"no", "error unmarshaling request body"),
    ],
)
def test_wrong_bodies_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        PARSER.parse("/v1/messages", body)


def test_each_parser_reads_its_own() -> None:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    assert Parser(OPENAI).parse("/v1/messages", body) is OPAQUE
    assert Parser(ANTHROPIC).parse("/v1/chat/completions", body) is OPAQUE
    assert Parser(ANTHROPIC).parse("/v1/messages", body).prompts == (padded(b"userHi"),)
