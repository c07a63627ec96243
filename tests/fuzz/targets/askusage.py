# SPDX-License-Identifier: Apache-2.0
"""Asking for a streamed answer's tokens, in any body.

* Nothing is raised. What comes out asks, so it is not changed a second time, and is JSON where the body was.
* It means what the body meant, but for the wish; another model can be spliced in before or after.
* At most the member comes, whatever it takes the place of.
"""

from __future__ import annotations

import json
from typing import Any

from epp.requests.askusage import ask_usage
from epp.requests.rewrite import with_model
from tests.fuzz.harness import Run, Target

PATH = "/v1/chat/completions"
_MOST_ADDED_BYTES = len(b',"stream_options":{"include_usage":true}')


def _make() -> Run:
    return _run


def _run(data: bytes) -> None:
    asked = ask_usage(data, PATH)
    if asked is None:
        return
    assert ask_usage(asked, PATH) is None
    assert len(asked) - len(data) <= _MOST_ADDED_BYTES
    renamed = with_model(data, "another")
    if renamed is not None:
        assert ask_usage(renamed, PATH) == with_model(asked, "another")
    before = _read(data)
    if before is not None:
        options = before.get("stream_options")
        if not isinstance(options, dict):
            options = {}
        assert before["stream"] not in (False, None)
        assert _read(asked) == {**before, "stream_options": {**options, "include_usage": True}}


def _read(body: bytes) -> dict[str, Any] | None:
    """What Python reads; None where it is stricter than the decoder, which skips what it does not need."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


_SEEDS = (
    b'{"model":"m","messages":[{"role":"user","content":"stream_options"}],"stream":true}',
    b'{"stream": true, "stream_options" : {"include_usage" : false, "x": {"include_usage": true}}, "model": "m"}',
    b'{"stream_options":null,"stream":true,"n":1}',
    b'{"stream_options":{ },"stream":true}',
    b'{"stream":true,"stream_options":{"continuous_usage_stats":true}}',
    b'{"stream":"yes","stream_options":[{"include_usage":true}]}',
    b'{"stream":1,"stream_options":{"include_usage":"no"}}',
)
_WORDS = (
    b'"stream"', b'"stream":true', b'"stream":true,', b'"stream_options":', b'"include_usage":', b"true", b"false",
    b"null", b"{", b"}", b",", b":", b'"', b"\\", b"[", b"]", b" ", b"\n", b"\xff", b"\\u0073", b'"model":"a",', b"{" * 300,
)  # fmt: skip
TARGET = Target("askusage", _make, lambda: _SEEDS, _WORDS)
