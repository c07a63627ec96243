# SPDX-License-Identifier: Apache-2.0
"""Request bodies, by path.

* `parse` gives a `Parsed` or raises a `BadRequest` of one line.
* Prompt streams are whole u32 tokens, no longer all together than the body and what assets may add; model, salt and
  limit are what an independent JSON parser reads, where that reads the body at all.
* Hashing the prompts into blocks raises nothing.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from epp.contract.errors import BadRequest
from epp.requests.bodies import Parsed
from epp.requests.parser import OPENAI, Parser
from epp.requests.prompts import ASSET_BYTES_LIMIT, VIDEO_TOKENS
from tests.fuzz.harness import Input, Run, Target, one_line

_PATHS = ("/elsewhere", *("/v1/" + suffix for suffix in OPENAI), "//x/completions/?", "\udcff/completions")


def _make() -> Run:
    parser = Parser()

    def run(data: bytes) -> None:
        source = Input(data)
        path = _PATHS[source.byte() % len(_PATHS)]
        body = source.rest()
        try:
            parsed = parser.parse(path, body)
        except BadRequest as error:
            one_line(error)
            return
        total = sum(map(len, parsed.prompts))
        assert not any(len(stream) % 4 for stream in parsed.prompts)
        assert total <= 4 * len(body) + 64 + ASSET_BYTES_LIMIT + 4 * VIDEO_TOKENS
        if parser._reader(path.strip("/")) is not None:
            _compare(parsed, body)

    return run


def _compare(parsed: Parsed, body: bytes) -> None:
    assert parsed.model
    try:
        plain: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    assert parsed.model == plain["model"]
    assert parsed.stream is (plain.get("stream") is True)
    salt = plain.get("cache_salt")
    assert parsed.cache_salt == (salt if isinstance(salt, str) else "")
    messages = plain.get("messages")
    if (
        messages
        and "tools" not in plain
        and all(isinstance(m.get("content"), str) for m in messages)
        and parsed.prompts
    ):
        text = "".join(m.get("role", "") + m["content"] for m in messages).encode()
        if "prompt" not in plain and "input" not in plain and "items" not in plain:
            assert parsed.prompts == (text + bytes(-len(text) % 4),)


def _seeds() -> list[bytes]:
    blocks = [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        {"type": "video_url", "video_url": "http://x/y.mp4"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    user = {"role": "user", "content": "hé\u0000\u2028"}
    chats = [
        {"model": "m", "messages": [user], "stream": True, "max_tokens": 5, "max_completion_tokens": None},
        {
            "model": "m",
            "messages": [{"role": "user", "content": blocks}],
            "tools": [{"type": "function"}],
            "cache_salt": "s",
        },
    ]
    prompts: list[Any] = ["text", ["a", "b"], [1, 2, 3], [[1, 2], [2**32 - 1]], ["a", [1]]]
    bodies: list[tuple[int, Any]] = [(1, chat) for chat in chats]
    bodies += [(3, {"model": "m", "prompt": prompt, "max_tokens": 7}) for prompt in prompts]
    bodies += [(5, {"model": "m", "input": ["a", {"b": None}]}), (7, {"model": "m", "items": [{"type": "message"}]})]
    bodies += [(6, {"model": "m", "input": "x", "instructions": "y", "tools": [{}], "max_output_tokens": 3})]
    bodies += [(8, {"model": "m", "prompt": "a cat"}), (0, {})]
    return [bytes([path]) + json.dumps(body).encode() for path, body in bodies]


_WORDS = (
    b'"model"', b'"messages"', b'"content":', b'"type":"video_url"', b'"image_url":', b'{"type":"text","text":"', b"[", b"]",
    b"{", b"}", b",", b":", b"null", b"true", b"-1", b"1e999", b"123456789012345678901234567890", b"1.5", b"[" * 300,
    b'{"a":' * 300, b'"\\ud800"', b'"\\udc00\\ud800"', b"\xff", b"\xed\xa0\x80", b"\\u0000", b'"prompt":', b"[[],[]]", b'""',
)  # fmt: skip
TARGET = Target("bodies", _make, _seeds, _WORDS)
