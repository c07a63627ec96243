# SPDX-License-Identifier: Apache-2.0
"""Bodies by path, and the prompt stream (specification: server section 4, plugins 4.4)."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import orjson
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.errors import BadRequest, BodyTooLarge, RequestError, UnsupportedEncoding
from epp.requests.encoding import decode, is_encoded
from epp.requests.parser import OPAQUE, Parser, request_path
from epp.requests.prompts import IMAGE_TOKENS, VIDEO_TOKENS

PARSER = Parser()


def parse(path: str, **body: Any) -> Any:
    return PARSER.parse(path, orjson.dumps({"model": "m", **body}))


def chat(*messages: Any, **more: Any) -> bytes:
    [stream] = parse("/v1/chat/completions", messages=list(messages), **more).prompts
    return bytes(stream)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def mark(identity: str, tokens: int) -> bytes:
    return (xxhash.xxh64_intdigest(identity.encode()) & 0xFFFFFFFF).to_bytes(4, "little") * tokens


def test_chat_is_roles_and_contents_without_separators() -> None:
    assert chat({"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}) == padded(b"systemBe.userHi")


def test_chat_leaves_names_and_calls_out_and_null_content() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}], "name": "n", "refusal": "r"}
    assert chat(message) == padded(b"assistant")


def test_chat_tools_come_first_as_they_were_written() -> None:
    body = b'{"model":"m","tools": [ {"a": 1} ],"messages":[{"role":"user","content":"x"}]}'
    assert PARSER.parse("/v1/chat/completions", body).prompts == (padded(b'[ {"a": 1} ]userx'),)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "text", "text": "abcd"}, b"abcd"),
        ({"type": "image_url", "image_url": {"url": "http://i"}}, mark("http://i", IMAGE_TOKENS)),
        ({"type": "video_url", "video_url": {"url": "v"}}, mark("v", VIDEO_TOKENS)),
        ({"type": "input_audio", "input_audio": {"data": "A" * 9, "format": "wav"}}, mark("A" * 9, 3)),
        ({"type": "image_url"}, mark("", IMAGE_TOKENS)),
        ({"type": "unknown", "text": "no"}, b""),
        ({}, b""),
    ],
)
def test_content_blocks(block: dict[str, Any], expected: bytes) -> None:
    assert chat({"role": "user", "content": [block]}) == b"user" + expected


def test_image_defaults_are_those_of_the_estimate() -> None:
    assert (IMAGE_TOKENS, VIDEO_TOKENS) == (225, 4500)


@pytest.mark.parametrize(
    ("prompt", "streams"),
    [
        ("abcde", (b"abcde\0\0\0",)),
        ("", (b"",)),
        ([1, 2], (b"\x01\0\0\0\x02\0\0\0",)),
        (["ab", "cdef"], (b"ab\0\0", b"cdef")),
        ([[1], [2, 3]], (b"\x01\0\0\0", b"\x02\0\0\0\x03\0\0\0")),
        ([], ()),
        ("wölke", ("wölke".encode() + b"\0\0",)),
    ],
)
def test_completion_prompts(prompt: Any, streams: tuple[bytes, ...]) -> None:
    assert parse("/v1/completions", prompt=prompt).prompts == streams


@pytest.mark.parametrize(
    ("path", "body", "stream"),
    [
        ("/v1/embeddings", {"input": "x"}, b'"x"'),
        ("/v1/conversations", {"items": [1]}, b"[1]"),
        ("/v1/responses", {"input": "x", "instructions": "i"}, b'[{"instructions":"i"},{"input":"x"}]'),
    ],
)
def test_other_apis_hash_their_json(path: str, body: dict[str, Any], stream: bytes) -> None:
    assert parse(path, **body).prompts == (padded(stream),)


def test_images_have_no_prefix_to_follow() -> None:
    assert parse("/v1/images/generations", prompt="a cat").prompts == ()


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("chat/completions", b'{"model":"m"}', "invalid chat completions request: must have valid messages field"),
        ("chat/completions", b'{"model":"m","messages":[]}', "must have valid messages field"),
        ("chat/completions", b'{"model":"m","messages":"x"}', "must have valid messages field"),
        ("completions", b'{"model":"m"}', "invalid completions request: must have prompt field"),
        ("completions", b'{"model":"m","prompt":[null]}', "must have prompt field"),
        ("embeddings", b'{"model":"m"}', "invalid embeddings request: must have input field"),
        ("responses", b'{"model":"m","input":null}', "invalid responses request: must have input field"),
        ("conversations", b'{"model":"m"}', "invalid conversations request: must have items field"),
        ("images/generations", b'{"model":"m","prompt":1}', "must have prompt field"),
        ("completions", b'{"prompt":"x"}', "model not found in request body"),
        ("completions", b'{"prompt":"x","model":7}', "model in request body is not a string"),
        ("completions", b"no", "error unmarshaling request bodyMap"),
        (
            "chat/completions",
            b'{"model":"m","messages":[],"max_tokens":1e999}',
            "bodyMap: Number out of range.*max_tokens",
        ),
        ("completions", b'{"prompt":"x"', "error unmarshaling request bodyMap"),
        ("completions", b"\xff\xfe", "error unmarshaling request bodyMap"),
        ("completions", b'{"a":' + b"[" * 100_000, "request"),
    ],
)
def test_unusable_bodies_say_why_in_one_line(path: str, body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        PARSER.parse(f"/v1/{path}", body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": "x"}, None),
    ],
)
def test_chat_limit(more: dict[str, Any], limit: int | None) -> None:
    messages = [{"role": "user", "content": "x"}]
    assert parse("/v1/chat/completions", messages=messages, **more).max_output_tokens == limit


@pytest.mark.parametrize(
    ("value", "stream"), [(True, True), (False, False), ("true", False), (None, False), (1, False)]
)
def test_stream_is_true_only_when_it_is(value: Any, stream: bool) -> None:
    assert parse("/v1/completions", prompt="x", stream=value).stream is stream


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/ns/name/v1/chat/completions", "chat/completions/", "/v1/chat/completions/render"]
)
def test_a_path_is_known_by_its_suffix(path: str) -> None:
    with pytest.raises(BadRequest, match="chat completions"):
        PARSER.parse(path, b'{"model":"m"}')


def test_unknown_paths_pass_through_or_are_refused() -> None:
    assert PARSER.parse("/v1/audio/speech", b"\x00") is OPAQUE
    with pytest.raises(BadRequest, match="no parser registered matching path suffix for: /v1/audio/speech"):
        Parser(opaque_allowed=False).parse("/v1/audio/speech", b"")


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({":path": "/a?b=c"}, "/a"),
        ({"x-original-path": "/o", "x-forwarded-path": "/f"}, "/o"),
        ({"x-forwarded-path": "/f"}, "/f"),
        ({}, "/v1/completions"),
    ],
)
def test_where_the_path_comes_from(headers: dict[str, str], path: str) -> None:
    assert request_path(headers) == path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ["model", "prompt", "messages", "stream", "tools", "input", "items", "max_tokens", "cache_salt"]


@given(
    st.sampled_from(["chat/completions", "completions", "embeddings", "responses", "conversations", "x"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda b: __import__("json").dumps(b).encode()) | st.binary(),
)
def test_any_body_is_read_or_refused(path: str, body: bytes) -> None:
    try:
        parsed = PARSER.parse(path, body)
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        assert all(len(stream) % 4 == 0 for stream in parsed.prompts)


@pytest.mark.parametrize(("name", "packed"), [
    ("gzip", gzip.compress(b"hello")), ("GZIP", gzip.compress(b"hello")), ("deflate", zlib.compress(b"hello")),
])  # fmt: skip
def test_compressed_bodies_are_read(name: str, packed: bytes) -> None:
    assert decode(packed, name, 100) == b"hello"


def test_identity_is_no_encoding() -> None:
    assert not is_encoded(None)
    assert not is_encoded("identity")
    assert not is_encoded(" Identity")
    assert is_encoded("br")


def test_an_unknown_encoding_names_what_is_allowed() -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate"):
        decode(b"x", "br", 100)


def test_a_bomb_is_capped() -> None:
    with pytest.raises(BodyTooLarge, match="max-body-size"):
        decode(gzip.compress(bytes(10_000_000)), "gzip", 1000)


@pytest.mark.parametrize(
    "body",
    [b"not gzip", gzip.compress(b"hello")[:-6], b"", gzip.compress(b"hello") * 2, gzip.compress(b"hello") + b"x"],
)
def test_broken_compression_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest, match="gzip"):
        decode(body, "gzip", 100)
