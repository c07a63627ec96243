# SPDX-License-Identifier: Apache-2.0
"""Token usage out of a response, however it is cut into chunks.

* The result of a response is the same in one piece, in the pieces drawn, and byte by byte.
* Nothing is raised, whatever the response holds; numbers are whole, not negative, below 2**53.
* What is held between chunks is at most `LIMIT_BYTES` and two objects of that size.
"""

from __future__ import annotations

from collections.abc import Iterable

from epp.contract.requests import Usage
from epp.requests.usage import LIMIT_BYTES, UsageReader
from tests.fuzz.harness import Input, Run, Target, pieces, with_cuts

_MOST_SINGLE_BYTES = 600
"""Longer responses are not fed byte by byte."""


def _make() -> Run:
    def run(data: bytes) -> None:
        source = Input(data)
        cuts = source.cuts()
        body = source.rest()
        expected = _read([body])
        assert _read(pieces(body, cuts)) == expected
        if len(body) <= _MOST_SINGLE_BYTES:
            assert _read(body[i : i + 1] for i in range(len(body))) == expected
        if expected is not None:
            for field in Usage.__struct_fields__:
                value = getattr(expected, field)
                assert value is None or (type(value) is int and 0 <= value <= 2**54)

    return run


def _read(chunks: Iterable[bytes]) -> Usage | None:
    reader = UsageReader()
    for chunk in chunks:
        reader.feed(chunk)
        held = [reader._tail, reader._first or b"", reader._latest or b""]
        assert max(map(len, held)) <= LIMIT_BYTES
    return reader.result()


_USAGE = b'"usage":{"prompt_tokens":24,"completion_tokens":178,"total_tokens":202,"prompt_tokens_details":{"cached_tokens":16}}'
_ANTHROPIC = (
    b'event: message_start\ndata: {"message":{"usage":{"input_tokens":"24","cache_read_input_tokens":16,"output_tokens":1}}}'
    b'\n\nevent: message_delta\ndata: {"usage": {"output_tokens":178.0}}\n\n'
)
_TOOL_INPUT = (
    b'{"content":[{"input":{"usage":{"total_tokens":0,"x":"{\\"{"}}}],"usage":{"input_tokens":24,"output_tokens":178,'
    b'"cache_creation_input_tokens":100,"cache_read_input_tokens":16,"output_tokens_details":{"reasoning_tokens":64}}}'
)
_SEEDS = (
    b'{"id":"x","choices":[{"message":{"content":"hello"}}],' + _USAGE + b"}",
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\ndata: {"choices":[],'
    + _USAGE
    + b"}\n\ndata: [DONE]\n\n",
    _ANTHROPIC,
    _TOOL_INPUT,
    b'{"usage":{"prompt_tokens":1,"x":{"y":"}"},"z":[[[[[]]]]]}}',
    b'{"usage":{"x":"' + b"y" * 5000 + b'","prompt_tokens":7}}' + b"," + _USAGE,
    b'{"usage":{"prompt_tokens":"' + b"9" * 5000 + b'"}}',
)
_WORDS = (
    b'"usage"', b'"usage":{', b'"usage":', b'"usage":null', b":", b"{", b"}", b"{{{{", b"}}}}", b'"', b"\\", b"[" * 300,
    b'"prompt_tokens":', b'"input_tokens":', b'"cache_read_input_tokens":', b'"reasoning_tokens":', b'"{', b'\\"',
    b'"total_tokens":"', b"1e400", b"-1", b"9" * 400, b" " * 500, b"\xff", b'\\"usage\\":{',
)  # fmt: skip
TARGET = Target("usage", _make, lambda: [with_cuts(seed, 7, 60) for seed in _SEEDS], _WORDS)
