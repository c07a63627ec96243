# SPDX-License-Identifier: Apache-2.0
"""Asking for the tokens of a streamed completion, where the client did not: `stream_options.include_usage` of OpenAI.

What must change is spliced in, every other byte stays. The decoder says where the values stand, so nothing within
messages can be taken for a member; of several equal members the last counts, as for the engines.
"""

from __future__ import annotations

import msgspec

from epp.requests.rewrite import span

_PATHS = ("/v1/chat/completions", "/v1/completions")
_ASK = b'"include_usage":true'


class _Body(msgspec.Struct):
    stream: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()


class _Options(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body).decode
_options = msgspec.json.Decoder(_Options).decode


def ask_usage(body: bytes, path: str) -> bytes | None:
    """`body`, sent to `path`, with `stream_options.include_usage: true`.

    None where nothing is to change: another API than completions, not `"stream": true`, asked already, or anything
    there that is no `stream_options` (the endpoint says what it thinks of that). A prefix before the path's /v1 and a
    query do not count.
    """
    if b"stream" not in body or not path.partition("?")[0].rstrip("/").endswith(_PATHS):
        return None
    try:
        read = _body(body)
        if bytes(read.stream) != b"true":
            return None
        options = bytes(read.stream_options)
        if not options:
            at = span(body, read.stream)
            return None if at is None else b'%b,"stream_options":{%b}%b' % (body[: at[1]], _ASK, body[at[1] :])
        new = b"{%b}" % _ASK if options == b"null" else _asking(options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    at = span(body, read.stream_options)
    return None if at is None or new is None else b"".join((body[: at[0]], new, body[at[1] :]))


def _asking(options: bytes) -> bytes | None:
    """`options`, an object, with `include_usage`."""
    said = _options(options).include_usage
    value = bytes(said)
    if not value:
        rest = options[1:]
        return b"{%b%b%b" % (_ASK, b"" if rest.lstrip(b" \t\r\n") == b"}" else b",", rest)
    at = span(options, said) if value in (b"false", b"null") else None
    return None if at is None else b"%btrue%b" % (options[: at[0]], options[at[1] :])
