# SPDX-License-Identifier: Apache-2.0
"""Taking the tokens out of a streamed answer, however it is cut.

* What comes out is the same in one piece, in the pieces drawn, and byte by byte; nothing is raised.
* Without the word nothing changes, and nothing is ever added.
* What is held back is the event that has not ended, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from epp.requests.hideusage import HideUsage
from tests.fuzz.harness import Input, Run, Target, pieces, with_cuts

_MOST_SINGLE_BYTES = 600
"""Longer answers are not fed byte by byte."""
_EVENT_END = re.compile(rb"\n\r?\n")


def _make() -> Run:
    def run(data: bytes) -> None:
        source = Input(data)
        cuts = source.cuts()
        answer = source.rest()
        expected = HideUsage().feed(answer, True)
        assert _fed(pieces(answer, cuts)) == expected
        if len(answer) <= _MOST_SINGLE_BYTES:
            assert _fed(answer[i : i + 1] for i in range(len(answer))) == expected
        assert len(expected) <= len(answer)
        if b'"usage"' not in answer:
            assert expected == answer

    return run


def _fed(parts: Iterable[bytes]) -> bytes:
    hide, out = HideUsage(), b""
    whole = b""
    for part in parts:
        out += hide.feed(part, False)
        whole += part
        ends = [found.end() for found in _EVENT_END.finditer(whole)]
        assert len(hide._held) == len(whole) - (ends[-1] if ends else 0)
    return out + hide.feed(b"", True)


_WORD = b'data: {"id":"c","choices":[{"delta":{"content":"x \\"usage\\""}}],"usage":null}\n\n'
_FINAL = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
_SEEDS = (
    _WORD + _FINAL + b"data: [DONE]\n\n",
    (_WORD + _FINAL).replace(b"\n", b"\r\n") + b": ping\n\n",
    b'data: {"usage" : {"a":1} , "choices":[{}]}\n\ndata: {"usage":null}',
)
_WORDS = (
    b'"usage"', b'"usage":null', b',"usage":{}', b'"choices":[]', b"data: ", b"data:", b"\n\n", b"\r\n\r\n", b"\n", b"\r",
    b"{", b"}", b",", b":", b'"', b"\\", b"[", b"]", b" " * 40, b"\xff", b": ping\n", _FINAL, b"{" * 300,
)  # fmt: skip
TARGET = Target("hideusage", _make, lambda: [with_cuts(seed, 7, 60) for seed in _SEEDS], _WORDS)
