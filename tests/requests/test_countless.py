# SPDX-License-Identifier: Apache-2.0
"""Bodies of very many values, and of assets that stand for very many tokens."""

from __future__ import annotations

import pytest

from epp.contract.errors import BadRequest
from epp.requests.bodies import MOST_PROMPTS
from epp.requests.countless import TOKENS_LIMIT, VALUES_LIMIT, is_countless
from epp.requests.parser import Parser
from epp.requests.prompts import ASSET_BYTES_LIMIT, VIDEO_TOKENS

PARSER = Parser()


def listed(field: str, unit: bytes, count: int) -> tuple[bytes, bytes]:
    """A body with `count` times `unit` in `field`, and the field's JSON."""
    value = b"[" + b",".join([unit] * count) + b"]"
    return b'{"model":"m","stream":true,"cache_salt":"s","%s":%s}' % (field.encode(), value), value


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "messages"),
        ("/v1/completions", "prompt"),
        ("/v1/embeddings", "input"),
        ("/v1/responses", "input"),
        ("/v1/messages", "messages"),
        ("/v1/conversations", "items"),
        ("/v1/images/generations", "prompt"),
    ],
)
def test_the_prompt_of_a_countless_body_is_its_json(path: str, field: str) -> None:
    body, value = listed(field, b"{}", VALUES_LIMIT)
    parsed = PARSER.parse(path, body)
    assert parsed.prompts == (value + bytes(-len(value) % 4),)
    assert (parsed.model, parsed.stream, parsed.cache_salt) == ("m", True, "s")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"messages":[1],"x":[%s]}', "model not found"),
        (b'{"model":null,"messages":[1],"x":[%s]}', "model not found"),
        (b'{"model":"","messages":[1],"x":[%s]}', "model not found"),
        (b'{"messages":[1],"model":[%s]}', "not a string"),
        (b'{"model":"\xff","messages":[1],"x":[%s]}', "not a string"),
        (b'{"model":"m","messages":[],"x":[%s]}', "must have valid messages"),
        (b'{"model":"m","x":[%s]}', "must have valid messages"),
        (b'{"model":"m","messages":[%s', "error unmarshaling"),
        (b"[%s]", "must have valid messages"),
    ],
)
def test_what_is_wrong_with_a_countless_body_is_said(body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        PARSER.parse("/v1/chat/completions", body % (b"{}," * VALUES_LIMIT + b"{}"))


def test_token_ids_have_a_limit_of_their_own() -> None:
    body, _ = listed("prompt", b"7", VALUES_LIMIT + 10)
    assert len(PARSER.parse("/v1/completions", body).prompts[0]) == 4 * (VALUES_LIMIT + 10)
    body, value = listed("prompt", b"7", TOKENS_LIMIT + 10)
    assert PARSER.parse("/v1/completions", body).prompts[0].startswith(value)


def test_many_prompts_are_followed_as_one() -> None:
    body, _ = listed("prompt", b'"ab"', MOST_PROMPTS)
    assert len(PARSER.parse("/v1/completions", body).prompts) == MOST_PROMPTS
    body, value = listed("prompt", b'"ab"', MOST_PROMPTS + 1)
    (only,) = PARSER.parse("/v1/completions", body).prompts
    assert only.rstrip(b"\0") == value


def test_a_long_text_is_not_countless() -> None:
    assert not is_countless(b'{"model":"m","prompt":"' + b"some words, some more. " * 400_000 + b'"}')


def test_assets_do_not_fill_the_memory() -> None:
    blocks = b",".join([b'{"type":"video_url","video_url":"u"}'] * 10_000)
    body = b'{"model":"m","messages":[{"content":[%s]}]}' % blocks
    (stream,) = PARSER.parse("/v1/chat/completions", body).prompts
    assert ASSET_BYTES_LIMIT <= len(stream) <= ASSET_BYTES_LIMIT + 4 * VIDEO_TOKENS + 4 * 10_000
