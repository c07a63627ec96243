# SPDX-License-Identifier: Apache-2.0
"""The reader against real servers, good and bad, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.contract.errors import ConfigError
from epp.signals.poll.buffers import BufferPool
from epp.signals.poll.http1 import PageError
from epp.signals.poll.reader import PageReader, PageSource
from epp.signals.poll.tls import page_tls
from tests.ipv6 import needs_ipv6

Serve = Callable[..., Any]
Run = Callable[[Awaitable[None]], None]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
HELLO = HEAD + b"hello"


class Pages:
    """A sink that keeps pages and errors, and lets a test wait for them."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bytes | PageError] = asyncio.Queue()
        self.reconnects = 0

    def on_page(self, buffer: bytearray, start: int, end: int) -> None:
        self.told.put_nowait(bytes(buffer[start:end]))

    def on_page_error(self, error: PageError) -> None:
        self.told.put_nowait(error)

    def on_reconnect(self) -> None:
        self.reconnects += 1


class Client:
    """A reader whose pages can be awaited."""

    def __init__(self, source: PageSource, timeout_s: float = 5.0, max_bytes: int = 8 << 20) -> None:
        self.pages = Pages()
        self.buffers = BufferPool()
        loop = asyncio.get_running_loop()
        self.reader = PageReader(
            source, self.pages, loop=loop, buffers=self.buffers, timeout_s=timeout_s, max_bytes=max_bytes
        )

    async def get(self) -> bytes:
        self.reader.fetch()
        told = await self.pages.told.get()
        assert self.pages.told.empty()
        if isinstance(told, PageError):
            raise told
        return told

    async def fails(self, reason: str, message: str | None = None) -> str:
        with pytest.raises(PageError, match=message) as caught:
            await self.get()
        text = str(caught.value)
        assert caught.value.reason == reason, text
        assert "\n" not in text
        assert self.reader.source.url in text
        return text


@contextlib.asynccontextmanager
async def client(port: int, host: str = "127.0.0.1", path: str = "/metrics", tls: Any = None, **options: Any) -> Any:
    made = Client(PageSource(host, port, path, tls), **options)
    try:
        yield made
    finally:
        made.reader.close()
        await asyncio.sleep(0.01)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run  # type: ignore[return-value]


def test_pages_come_over_one_connection(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with serve(HELLO) as server, client(server.port, path="/metrics?x=1") as reader:
            assert [await reader.get() for _ in range(5)] == [b"hello"] * 5
            assert server.connections == 1
            assert server.requests[0].startswith(b"GET /metrics?x=1 HTTP/1.1\r\n")
            assert b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in server.requests[0]
            assert b"\r\nAccept-Encoding: identity\r\n" in server.requests[0]
            assert len(set(server.requests)) == 1

    run(main())


def test_what_to_ask_for_may_change_at_any_time_even_while_connecting_again(serve: Serve, run: Run) -> None:
    asked: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(HELLO)
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])

    class Changing(Pages):
        def on_reconnect(self) -> None:
            super().on_reconnect()
            reader.reader.use("/whole")

    async def main() -> None:
        async with serve(script) as server, client(server.port) as made:
            nonlocal reader
            reader = made
            reader.pages = reader.reader._sink = Changing()
            assert await reader.get() == b"hello"
            reader.reader.use("/filtered")
            assert await reader.get() == b"hello"
            assert reader.pages.reconnects == 1
            assert asked == [b"/metrics", b"/filtered", b"/whole"]

    reader: Any = None
    run(main())


def test_odd_pieces_and_a_slow_server(serve: Serve, run: Run) -> None:
    body = bytes(range(256)) * 40
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 700]), body[i : i + 700]) for i in range(0, len(body), 700))
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for step in (997, 1, len(raw)):
            await reader.readuntil(b"\r\n\r\n")
            pieces = [raw[i : i + step] for i in range(0, len(raw), step)]
            for piece in pieces if step != 1 else [*(raw[i : i + 1] for i in range(200)), raw[200:]]:
                writer.write(piece)
                await asyncio.sleep(0)
        await reader.read()

    async def main() -> None:
        async with serve(script) as server, client(server.port) as reader:
            for _ in range(3):
                assert await reader.get() == body
            assert server.connections == 1

    run(main())


def test_pages_that_grow_and_shrink(serve: Serve, run: Run) -> None:
    sizes = [10, 300_000, 16_384 - len(HEAD), 16_385, 0, 2_000_000, 80_000, 5]
    pages = [bytes(range(1, 251)) * (size // 250) + b"e" * (size % 250) for size in sizes]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for page in pages:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
        await reader.read()

    async def main() -> None:
        async with serve(script) as server, client(server.port) as reader:
            for page in pages:
                assert await reader.get() == page
            assert server.connections == 1

    run(main())


def test_readers_share_buffers(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with serve(HELLO) as server, client(server.port) as one, client(server.port) as other:
            other.reader.buffers = one.buffers
            for _ in range(3):
                assert await one.get() == await other.get() == b"hello"
            assert len(one.buffers._free) == 1

    run(main())


def test_a_connection_that_ends_is_made_anew(serve: Serve, run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await asyncio.sleep(0.01)
        writer.write(b"lo")

    async def main() -> None:
        for behaviour in (script, until_close):
            async with serve(behaviour) as server, client(server.port) as reader:
                assert [await reader.get() for _ in range(3)] == [b"hello"] * 3
                assert server.connections == 3

    run(main())


def test_a_connection_closed_while_idle_is_no_failure(serve: Serve, run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)

    async def main() -> None:
        async with serve(script) as server, client(server.port) as reader:
            for _ in range(3):
                assert await reader.get() == b"hello"
                await asyncio.sleep(0.02)
            assert server.connections == 3

    run(main())


def test_a_connection_closed_at_the_next_request_is_tried_once_more(serve: Serve, run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)
        await reader.readuntil(b"\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server, client(server.port) as reader:
            assert [await reader.get() for _ in range(3)] == [b"hello"] * 3
            assert server.connections == 3

    run(main())


def test_a_new_connection_closed_without_an_answer_is_a_failure(serve: Serve, run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server, client(server.port) as reader:
            await reader.fails("closed", "without an answer")
            assert server.connections == 1

    run(main())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "closed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed"),
        (b"HTTP/1.1 2", "closed"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "status"),
        (b"\x00\x01\x02 garbage \xff" * 100, "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", "too-large"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, "too-large"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n" + b"x" * 32768 + b"\r\n" + b"fffff\r\n",
            "too-large",
        ),
    ],
)
def test_bad_answers(serve: Serve, run: Run, raw: bytes, reason: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    async def main() -> None:
        async with serve(script) as server, client(server.port, max_bytes=100_000) as reader:
            await reader.fails(reason)
            # And the next one starts afresh.
            await reader.fails(reason)
            assert server.connections == 2

    run(main())


def test_no_answer_ends_with_the_timeout(serve: Serve, run: Run) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.005)

    async def main() -> None:
        for behaviour in (silent, trickle):
            async with serve(behaviour) as server, client(server.port, timeout_s=0.05) as reader:
                await reader.fails("timeout", "no complete answer came within 0.05 s")
                await reader.fails("timeout")
                assert server.connections == 2

    run(main())


def test_nobody_listens(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def main() -> None:
            async with client(port) as reader:
                text = await reader.fails("connect", "cannot connect")
                assert "refused" in text

        run(main())


def test_a_connection_that_is_never_accepted(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as full, contextlib.ExitStack() as stack:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            # The backlog is full: further connections get no answer at all.
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with client(full.getsockname()[1], timeout_s=0.1) as reader:
                await reader.fails("timeout", "within 0.1 s")

    run(main())


def test_bytes_that_nobody_asked_for_are_not_taken_for_an_answer(serve: Serve, run: Run) -> None:
    parted = asyncio.Semaphore(0)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(HEAD + b"WRONG")
        with contextlib.suppress(OSError):
            await reader.read()
        parted.release()

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO + HEAD + b"WRONG")
        with contextlib.suppress(OSError):
            await reader.read()
        parted.release()

    async def main() -> None:
        for behaviour in (late, at_once):
            async with serve(behaviour) as server, client(server.port) as reader:
                for _ in range(2):
                    assert await reader.get() == b"hello"
                    await asyncio.wait_for(parted.acquire(), 10)
                assert server.connections == 2

    run(main())


def test_after_close_nothing_is_told(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with serve(HELLO) as server:
            for wait_s in (0, 0.001, 0.02):
                async with client(server.port) as reader:
                    assert await reader.get() == b"hello"
                    reader.reader.fetch()
                    reader.reader.close()
                    await asyncio.sleep(wait_s)
                    reader.reader.close()
                async with client(server.port) as reader:
                    reader.reader.fetch()
                    await asyncio.sleep(wait_s / 10)
                    reader.reader.close()
                    await asyncio.sleep(0.01)
                    if wait_s < 0.02:
                        assert reader.pages.told.empty()

    run(main())


@needs_ipv6
def test_ipv6(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with serve(HELLO, host="::1") as server, client(server.port, host="::1") as reader:
            assert await reader.get() == b"hello"
            assert b"\r\nHost: [::1]:%d\r\n" % server.port in server.requests[0]

    run(main())


def make_certificate(directory: Path, address: str) -> Path:
    """A self-signed certificate for `address` and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pod")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / f"{address}.pem"
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_https_with_and_without_verification(serve: Serve, run: Run, tmp_path: Path) -> None:
    right, wrong = make_certificate(tmp_path, "127.0.0.1"), make_certificate(tmp_path, "127.9.9.9")

    async def main() -> None:
        for certificate, trusted in ((right, True), (wrong, False)):
            server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_tls.load_cert_chain(certificate)
            async with serve(HEAD + b"hello", tls=server_tls) as server:
                async with client(server.port, tls=page_tls(verify=False)) as reader:
                    assert [await reader.get() for _ in range(3)] == [b"hello"] * 3
                    assert server.connections == 1
                async with client(server.port, tls=page_tls(verify=True, ca_file=str(certificate))) as reader:
                    if trusted:
                        assert await reader.get() == b"hello"
                    else:
                        await reader.fails("tls", "handshake failed")
                async with client(server.port) as reader:
                    with pytest.raises(PageError):
                        await reader.get()

    run(main())


def test_a_client_certificate_is_shown(serve: Serve, run: Run, tmp_path: Path) -> None:
    ours, theirs = make_certificate(tmp_path, "127.0.0.2"), make_certificate(tmp_path, "127.0.0.1")
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(theirs)
    server_tls.load_verify_locations(ours)
    server_tls.verify_mode = ssl.CERT_REQUIRED

    async def main() -> None:
        shown = page_tls(verify=True, ca_file=str(theirs), client_certificate=(str(ours), str(ours)))
        async with serve(HELLO, tls=server_tls) as server:
            async with client(server.port, tls=shown) as reader:
                assert await reader.get() == b"hello"
            async with client(server.port, tls=page_tls(verify=False)) as reader:
                with pytest.raises(PageError):
                    await reader.get()

    run(main())


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"metrics CA file .*missing.pem cannot be used: No such file"):
        page_tls(verify=True, ca_file=missing)
    with pytest.raises(ConfigError, match=r"junk.pem cannot be used: it, or its key"):
        page_tls(verify=True, ca_file=str(junk))
    with pytest.raises(ConfigError, match=r"metrics client certificate .*junk.pem cannot be used"):
        page_tls(verify=False, client_certificate=(str(junk), ""))


def test_https_to_a_server_that_speaks_http(serve: Serve, run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server, client(server.port, tls=page_tls(verify=False)) as reader:
            await reader.fails("tls", "handshake failed")

    run(main())


def test_a_second_read_at_the_same_time_is_a_mistake_of_ours(serve: Serve, run: Run) -> None:
    async def main() -> None:
        async with serve(HELLO) as server, client(server.port) as reader:
            reader.reader.fetch()
            with pytest.raises(RuntimeError, match="being read already"):
                reader.reader.fetch()

    run(main())
