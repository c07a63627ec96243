# SPDX-License-Identifier: Apache-2.0
"""Asking for the tokens of a streamed completion, where the client did not: `stream_options.include_usage` of OpenAI.

What must change is spliced in, every other byte stays. The decoder says where the values stand, so nothing within
messages can be taken for a member; of several equal members the last counts, as for the engines.

Engines read booleans in their own ways: Python's take `"stream": "yes"` for true and `"include_usage": "no"` for false,
others overlook what is no boolean. A client must not get tokens uncounted by that. So everything is taken for a stream
that some engine may stream, and only `true` for a wish that is there already.
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


_NAME = b"stream"
_MAYBE_ESCAPED = b"\\u00"
"""How a letter of a member's name is written that is not written as itself."""
_WORDS_FOR_FALSE = frozenset(("", "0", "false", "f", "no", "n", "off"))
_LONGEST_FALSE_BYTES = 64
"""A longer value is not looked at: nothing is built of what clients make long."""
_any = msgspec.json.Decoder().decode
_body = msgspec.json.Decoder(_Body).decode
_options = msgspec.json.Decoder(_Options).decode


def ask_usage(body: bytes, path: str) -> bytes | None:
    """`body`, sent to `path`, with `stream_options.include_usage: true`.

    None where nothing is to change: another API than completions, no stream, or `true` is there already. Options that
    are no object are replaced, since some engines overlook them. A prefix before the path's /v1 and a query do not
    count.
    """
    named = _NAME in body or _MAYBE_ESCAPED in body
    if not named or not path.partition("?")[0].rstrip("/").endswith(_PATHS):
        return None
    try:
        read = _body(body)
        if not _streams(bytes(read.stream)):
            return None
        options = bytes(read.stream_options)
        if not options:
            at = span(body, read.stream)
            return None if at is None else b'%b,"stream_options":{%b}%b' % (body[: at[1]], _ASK, body[at[1] :])
        new = _asking(options) if options[:1] == b"{" else b"{%b}" % _ASK
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    at = span(body, read.stream_options)
    return None if at is None or new is None else b"".join((body[: at[0]], new, body[at[1] :]))


def _streams(value: bytes) -> bool:
    """Whether some engine takes the JSON in `value` for a wish to stream."""
    if value in (b"true", b"false", b"null", b""):
        return value == b"true"
    if len(value) > _LONGEST_FALSE_BYTES:
        return True
    try:
        said = _any(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return said.strip().lower() not in _WORDS_FOR_FALSE if isinstance(said, str) else bool(said)


def _asking(options: bytes) -> bytes | None:
    """`options`, an object, with `include_usage`."""
    said = _options(options).include_usage
    value = bytes(said)
    if not value:
        rest = options[1:]
        return b"{%b%b%b" % (_ASK, b"" if rest.lstrip(b" \t\r\n") == b"}" else b",", rest)
    at = span(options, said) if value != b"true" else None
    return None if at is None else b"%btrue%b" % (options[: at[0]], options[at[1] :])
