# SPDX-License-Identifier: Apache-2.0
"""The cases of `worst`: the largest and oddest inputs that each reader can be given, and the bounds of what they cost.

Bounds are over the input itself, which is in memory before. A request body's are those of the default limit, 64 MiB:
its prompt is one copy, and one more is made on the way. What is smaller than that has a small bound.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator

import ngh2

from epp.contract.errors import EppError
from epp.director import Settings
from epp.protos.ext_proc_pb2 import ProcessingRequest
from epp.requests.countless import VALUES_LIMIT
from epp.requests.encoding import decode
from epp.requests.parser import Parser
from epp.requests.usage import UsageReader
from epp.signals.poll.http1 import PageError
from tests.fuzz.targets import conversation
from tests.fuzz.worst import Case

MIB = 1 << 20
BODY = 64 * MIB
Measured = Callable[[], object]


def _refused(run: Callable[[], object]) -> Measured:
    """`run`, which must raise an error of ours."""

    def measured() -> None:
        try:
            run()
        except EppError:
            return
        raise AssertionError("it was taken")

    return measured


# Request bodies.


def _body(
    path: str, head: bytes, unit: bytes, tail: bytes, size: int = BODY, *, refused: bool = False
) -> Callable[[], Measured]:
    def prepare() -> Measured:
        body = head + unit * (size // len(unit)) + tail
        parser = Parser()
        return _refused(lambda: parser.parse(path, body)) if refused else lambda: parser.parse(path, body)

    return prepare


_CHAT, _COMPLETION = "/v1/chat/completions", "/v1/completions"
_BLOCKS = b'{"model":"m","messages":[{"content":['
_JUST_COUNTED = VALUES_LIMIT * 4 - 1000
BODIES = [
    Case("body: brackets", _body(_CHAT, b"", b"[", b"", refused=True), 5, 0.5),
    Case("body: nested in a field that is skipped", _body(_CHAT, b'{"x":', b"[", b"", refused=True), 5, 0.5),
    Case("body: nested objects", _body(_CHAT, b'{"messages":', b'{"a":', b"", refused=True), 5, 0.5),
    Case("body: empty blocks", _body(_CHAT, _BLOCKS, b"{},", b"{}]}]}"), 140, 3),
    Case("body: as many blocks as are built", _body(_CHAT, _BLOCKS, b'{"a":1},', b"{}]}]}", _JUST_COUNTED), 140, 2),
    Case("body: empty messages", _body(_CHAT, b'{"model":"m","messages":[', b"{},", b"{}]}"), 140, 3),
    Case("body: videos", _body(_CHAT, _BLOCKS, b'{"type":"video_url"},', b"{}]}]}", 5 * MIB), 140, 2),
    Case("body: empty prompts", _body(_COMPLETION, b'{"model":"m","prompt":[', b"[],", b'""]}'), 140, 3),
    Case("body: token ids", _body(_COMPLETION, b'{"model":"m","prompt":[', b"1000,", b"1]}", 20 * MIB), 260, 3),
    Case("body: more token ids", _body(_COMPLETION, b'{"model":"m","prompt":[', b"1000,", b"1]}"), 140, 3),
    Case("body: a model of lists", _body(_CHAT, b'{"messages":[1],"model":[', b"[],", b"1]}", refused=True), 140, 3),
    Case("body: one text", _body(_CHAT, b'{"model":"m","messages":[{"content":"', b"x", b'"}]}'), 270, 3),
]


def _bomb(wbits: int, name: str) -> Callable[[], Measured]:
    """16 GiB of zeros: one flushed block that stands by itself, a thousand times."""

    def prepare() -> Measured:
        packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
        head = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
        block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
        body = head + block * 1000
        return _refused(lambda: decode(body, name, BODY))

    return prepare


ENCODINGS = [
    Case("gzip bomb", _bomb(31, "gzip"), 140, 2),
    Case("deflate bomb", _bomb(15, "deflate"), 140, 2),
]


# Responses.


def _response(head: bytes, unit: bytes, size: int, chunk: int) -> Callable[[], Measured]:
    def prepare() -> Measured:
        piece = (unit * (chunk // len(unit) + 1))[:chunk]

        def run() -> None:
            reader = UsageReader()
            reader.feed(head)
            for _ in range(size // chunk):
                reader.feed(piece)
            reader.result()

        return run

    return prepare


USAGE = [
    Case("response: a line without end", _response(b'data: {"x":"', b"x", 100 * MIB, 16_384), 5, 1),
    Case("response: usage without end", _response(b'data: {"usage":{"a":"', b"x", 100 * MIB, 16_384), 5, 1),
    Case("response: nothing but usage", _response(b"{", b'"usage":{', 8 * MIB, 16_384), 5, 6),
    Case("response: braces", _response(b'{"usage":', b'"usage":{{{{}}}', 2 * MIB, 100_000), 5, 6),
    Case("response: blanks after the key", _response(b"", b'"usage"' + b" " * 5000, 100 * MIB, 65_536), 5, 2),
    Case("response: one byte at a time", _response(b'{"usage":{"a":"', b'{"', MIB // 8, 1), 5, 3),
]


def _message(make: Callable[[], bytes], **more: object) -> Callable[[], Measured]:
    """A conversation with the picker, of one message after the request's headers."""

    def prepare() -> Measured:
        return _talk([(conversation.MESSAGE, make())])

    return prepare


def _talk(said: list[tuple[int, bytes]] | Callable[[], Iterator[tuple[int, bytes]]]) -> Measured:
    from tests.fuzz.targets.picker import Picker, check_replies, converse

    picker = Picker(limit_bytes=Settings().body_limit_bytes)

    def run() -> None:
        whole = said() if callable(said) else said
        outlet = asyncio.run(converse(picker, whole))
        check_replies(outlet)
        assert picker.in_flight() == 0

    return run


def _many_headers() -> bytes:
    message = ProcessingRequest()
    add = message.request_headers.headers.headers.add
    for number in range(1_000_000):
        add(key=f"x-{number}", raw_value=b"y")
    return message.SerializeToString()


def _empty_headers() -> bytes:
    """As many headers of two bytes each as are parsed, by hand."""
    entries = b"\x0a\x00" * (2 * MIB - 100)
    inner = b"\x0a" + _varint(len(entries)) + entries
    return b"\x12" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


_HEADERS = [(":path", _CHAT.encode()), (":method", b"POST")]


def _pieces(piece: bytes, count: int) -> Callable[[], Measured]:
    """A request body in very many pieces."""

    def said() -> Iterator[tuple[int, bytes]]:
        yield conversation.MESSAGE, conversation.request_headers(_HEADERS)
        message = conversation.body(piece, end=False)
        for _ in range(count):
            yield conversation.MESSAGE, message

    return lambda: _talk(said)


EXCHANGES = [
    Case("stream: a million headers", _message(_many_headers), 5, 2),
    Case("stream: two million empty headers", _message(_empty_headers), 200, 5),
    Case("stream: a body in pieces of two bytes", _pieces(b"xy", 250_000), 5, 3),
    Case("stream: empty pieces without end", _pieces(b"", 250_000), 1, 3),
    Case("stream: a length without end", _message(lambda: b"\x2a" + b"\xff" * BODY), 140, 1),
]


# Metrics pages.


def _page(page: Callable[[], bytes]) -> Callable[[], Measured]:
    def prepare() -> Measured:
        from tests.fuzz.targets.page import veteran_and_new

        data = page()
        return lambda: veteran_and_new(data)

    return prepare


def _http(head: bytes, unit: bytes, size: int = 100 * MIB) -> Callable[[], Measured]:
    """An answer of 100 MiB, to the connection of a page reader."""

    def prepare() -> Measured:
        from tests.fuzz.targets.http1 import Endless

        def run() -> None:
            connection = Endless()
            connection.say(head)
            chunk = unit * (16_384 // len(unit))
            for _ in range(size // len(chunk)):
                if connection.error is not None:
                    return
                connection.say(chunk)
            raise PageError("protocol", "it was read to its end")

        return run

    return prepare


_OK = b"HTTP/1.1 200 OK\r\n"
_LABEL = b'vllm:num_requests_waiting{a="'
PAGES = [
    Case("page: one line", _page(lambda: b"vllm:num_requests_waiting " + b"1" * (8 * MIB)), 20, 1),
    Case("page: a label without end", _page(lambda: (_LABEL + b"\\\\" * 30_000 + b'"\n') * 130), 40, 4),
    Case(
        "page: blanks before names", _page(lambda: (b" " * 2000 + b"vllm:num_requests_waiting_total 1\n") * 4000), 20, 8
    ),
    Case("page: blanks alone", _page(lambda: (b" \t" * 512 + b"xvllm:num_requests_waiting ") * 8000), 20, 8),
    Case("page: series", _page(lambda: b'vllm:num_requests_waiting{a="b"} 1\n' * 230_000), 20, 2),
    Case("page: labels", _page(lambda: (b"vllm:cache_config_info{" + b'a="b",' * 10_000 + b"} 1\n") * 30), 60, 4),
    Case("http: a head without end", _http(_OK + b"A: ", b"x"), 5, 1),
    Case("http: headers without end", _http(_OK, b"a:b\r\n"), 5, 1),
    Case("http: other answers without end", _http(b"", b"HTTP/1.1 100 \r\n\r\n"), 20, 2),
    Case("http: a body without end", _http(_OK + b"\r\n", b"x"), 40, 1),
    Case("http: small chunks", _http(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), 5, 1),
    Case("http: trailers without end", _http(_OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a:b\r\n"), 5, 1),
    Case("http: a size without end", _http(_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"), 5, 1),
]


# Files and flags.


def _bomb_of_aliases(levels: int = 30) -> bytes:
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, levels)]
    return b"\n".join(lines)


def _file(kind: str, text: Callable[[], bytes]) -> Callable[[], Measured]:
    def prepare() -> Measured:
        import importlib

        run = importlib.import_module(f"tests.fuzz.targets.{kind}").TARGET.make()
        data = text()[: MIB - 1]
        if kind == "configuration":
            data = b"\0" + data
        run(b"")
        return lambda: run(data)

    return prepare


_TEXTS: list[tuple[str, Callable[[], bytes], float, float]] = [
    ("aliases", _bomb_of_aliases, 20, 1),
    (
        "aliases in a list",
        lambda: b"endpoints:\n- &a {name: a, address: 10.0.0.1, port: 1}\n" + b"- *a\n" * 30_000,
        30,
        3,
    ),
    ("brackets", lambda: b"[" * MIB, 20, 1),
    ("json brackets", lambda: b"{" + b'"a":[' * 200_000, 20, 1),
    ("one key", lambda: b"k" * (MIB - 10) + b": 1", 60, 2),
    ("many keys", lambda: b"".join(b"k%d: 1\n" % n for n in range(12_000)), 30, 3),
    ("a number", lambda: b"endpoints: " + b"9" * (MIB - 20), 60, 2),
    ("a json text", lambda: b'{"plugins": "' + b"\\n" * 520_000 + b'"}', 250, 5),
    ("a yaml text", lambda: b'plugins: "' + b"\\n" * 520_000 + b'"', 120, 5),
    ("list items", lambda: b"endpoints:\n" + b"- {}\n" * 30_000, 40, 3),
    ("plugins", lambda: b"plugins:\n" + b"- {type: queue-scorer, name: a}\n" * 4_000, 20, 3),
]
FILES = [
    Case(f"{kind}: {name}", _file(kind, text), most_mib, most_s)
    for kind in ("endpoints_file", "configuration")
    for name, text, most_mib, most_s in _TEXTS
]
FLAGS = [
    Case("flags: thousands", _file("flags", lambda: b"--endpoints\x0010.0.0.1:1\0" * 4_000), 20, 2),
    Case("flags: addresses", _file("flags", lambda: b"--endpoints=" + b"10.0.0.1:1," * 10_000), 20, 2),
    Case("flags: a selector", _file("flags", lambda: b"--endpoint-selector=" + b"a in (" + b"a, " * 30_000), 60, 5),
    Case("flags: a label", _file("flags", lambda: b"--endpoint-selector=" + b"a" * 100_000 + b"/"), 60, 5),
    Case("flags: a metric", _file("flags", lambda: b'--cache-info-metric=a{a="' + b"\\x" * 60_000), 60, 5),
    Case("flags: blanks", _file("flags", lambda: b"--cache-info-metric=a{a" + b" " * 100_000 + b"b}"), 60, 5),
    Case("flags: a number", _file("flags", lambda: b"--max-body-size=" + b"9" * 100_000), 20, 2),
    Case("flags: unknown", _file("flags", lambda: b"--" + b"x" * 1_000_000), 20, 2),
]


# HTTP/2.


def _frames(chunk: bytes, count: int) -> Callable[[], Measured]:
    def prepare() -> Measured:
        from epp.transport.frames import Deframer, FrameError

        def run() -> None:
            frames = Deframer(BODY, "")
            try:
                for _ in range(count):
                    for _message in frames.feed(chunk):
                        pass
            except FrameError:
                pass

        return run

    return prepare


def _h2(after: Callable[[], bytes]) -> Callable[[], Measured]:
    def prepare() -> Measured:
        from tests.fuzz.harness import with_cuts
        from tests.fuzz.targets.h2 import TARGET

        client = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
        client.initiate_connection({})
        data = with_cuts(client.data_to_send() + after())
        run = TARGET.make()
        return lambda: run(data)

    return prepare


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _hpack_bomb() -> bytes:
    """An entry of 4,000 bytes in the dynamic table, named a million times."""
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    block = b"\x83\x86\x84" + entry
    blocks = [_frame(1, 0, 1, block), *[_frame(9, 0, 1, b"\xbe" * 16_000)] * 63, _frame(9, 4, 1, b"\xbe" * 1000)]
    return b"".join(blocks)


TRANSPORTS = [
    Case("frames: one message in small pieces", _frames(b"\0\4\0\0\0" + b"\0" * 11, MIB), 40, 3),
    Case("frames: empty messages", _frames(b"\0" * 5 * MIB, 1), 10, 3),
    Case("h2: a header named a million times", _h2(_hpack_bomb), 10, 1),
    Case(
        "h2: continuation without end", _h2(lambda: _frame(1, 0, 1, b"\x83") + _frame(9, 0, 1, b"") * 1_000_000), 10, 1
    ),
    Case("h2: pings", _h2(lambda: _frame(6, 0, 0, bytes(8)) * 1_000_000), 10, 1),
    Case("h2: settings", _h2(lambda: _frame(4, 0, 0, b"\0\4\0\0\1\0") * 1_000_000), 10, 1),
    Case("h2: empty data", _h2(lambda: _frame(1, 4, 1, b"\x83\x86\x84") + _frame(0, 0, 1, b"") * 1_000_000), 10, 1),
    Case("h2: streams opened and reset", _h2(lambda: b"".join(_reset(2 * n + 1) for n in range(100_000))), 10, 2),
]


def _reset(stream: int) -> bytes:
    return _frame(1, 5, stream, b"\x83\x86\x84") + _frame(3, 0, stream, b"\0\0\0\x08")


CASES = [*BODIES, *ENCODINGS, *USAGE, *EXCHANGES, *PAGES, *FILES, *FLAGS, *TRANSPORTS]
