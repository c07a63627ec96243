# SPDX-License-Identifier: Apache-2.0
"""`/debug/decisions` and `epp explain`: what is told, to whom, in which form, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epp.admin import Admin
from epp.admin.access import Verdict
from epp.cli import main
from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.requests import Cause, Completion, Usage
from epp.contract.snapshot import snapshot
from epp.observe.decision.record import Record
from epp.observe.decision.ring import DecisionRing
from epp.observe.metrics.page import MetricsRegistry
from epp.service.debugpages import MOST_DECISIONS, PATH, DecisionsPage
from epp.service.explanation import WIDTH, explain, seconds
from epp.testing import FakeClock, make_endpoints
from epp.transport.selfsigned import self_signed
from epp.transport.tls import TlsSource
from tests.transport.support import write_pair

HOST = "127.0.0.1"


def record(
    request_id: str = "id-1", at_s: float = 1000.0, count: int = 3, scorers: Sequence[str] = ("load",), model: str = "m"
) -> Record:
    """`count` candidates are left, the second one wins; one more fell by a filter."""
    endpoints = make_endpoints(count + 1, waiting=np.arange(count + 1) * 1.0, kv_utilization=0.25, now_s=at_s)
    left = endpoints.where(np.arange(count + 1) < count)
    raw = np.linspace(0.1, 0.5, count)
    raw[1 % count] = 0.75
    traces = tuple(ScoreTrace(name, 2.0, raw) for name in scorers)
    total = sum((trace.weighted for trace in traces), np.zeros(count))
    result = ProfileResult(
        "default", left, (FilterTrace("warm", count + 1, endpoints.rows[count:]),), traces, total, (1 % count,)
    )
    decision = Decision(request_id, model, model, "default", {"default": result}, count + 1, at_s, snapshot(endpoints))
    return Record(decision, at_s - 0.001, at_s, 0.0002, 96.0)


@contextlib.contextmanager
def serving(ring: DecisionRing, clock: FakeClock | None = None, on: bool = True) -> Iterator[int]:
    page = DecisionsPage(ring, clock or FakeClock(), lambda: 1_800_000_000.0, lambda seconds: None)
    server = Admin(HOST, 0, MetricsRegistry(), lambda: None, {PATH: page} if on else {})
    try:
        yield server.port
    finally:
        server.close()


@contextlib.contextmanager
def answering(text: bytes) -> Iterator[int]:
    """A port that answers one connection with `text`."""
    with socket.create_server((HOST, 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(text)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(10)


def ring_of(*records: Record) -> DecisionRing:
    ring = DecisionRing()
    for one in records:
        ring.add(one)
    return ring


def get(port: int, query: str = "", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, PATH + query)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_the_page_by_request_id() -> None:
    ring = ring_of(record("first try", model="a"), record("other"), record("first try", model="b"))
    with serving(ring) as port:
        status, headers, body = get(port, "?request_id=first%20try")
        document = json.loads(body)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert (document["version"], document["kept"], document["made"], document["truncated"]) == (1, 3, 3, False)
        assert [decision["model"] for decision in document["decisions"]] == ["b", "a"]
        assert [decision["number"] for decision in document["decisions"]] == [3, 1]
        assert len(json.loads(get(port, "?request_id=first%20try&limit=1")[2])["decisions"]) == 1


def test_the_page_of_the_last() -> None:
    clock = FakeClock()
    with serving(ring_of(*[record(f"id-{n}", at_s=990.0 + n / 2) for n in range(21)]), clock) as port:
        assert [d["request_id"] for d in json.loads(get(port)[2])["decisions"]] == [f"id-{n}" for n in range(20, 0, -1)]
        two = json.loads(get(port, "?limit=2")[2])["decisions"]
        assert [d["request_id"] for d in two] == ["id-20", "id-19"]
        assert "others" not in two[0]["profiles"][0]
        assert len(json.loads(get(port, "?since_s=2&limit=100")[2])["decisions"]) == 5
        [full] = json.loads(get(port, "?limit=1&full=1")[2])["decisions"]
        assert len(full["profiles"][0]["others"]) == 1


@pytest.mark.parametrize(
    ("query", "status", "line"),
    [
        ("?request_id=no-one", 404, "no decision for request id 'no-one' among the last 1 that are kept"),
        ("?limit=0", 400, "limit='0' must be a whole number from 1 to 1000"),
        ("?limit=1001", 400, "limit='1001' must be a whole number from 1 to 1000"),
        ("?limit=" + "9" * 5000, 400, "must be a whole number from 1 to 1000"),
        ("?limit=x", 400, "limit='x' must be a whole number"),
        ("?limit=", 400, "limit='' must be a whole number"),
        ("?full=2", 400, "full='2' must be 0 or 1"),
        ("?since_s=-1", 400, "since_s='-1' must be a number of seconds of at least 0"),
        ("?since_s=nan", 400, "since_s='nan' must be a number of seconds of at least 0"),
        ("?requestid=x", 400, "knows no parameter 'requestid'; it knows request_id, limit, since_s, full"),
        ("?request_id=a%0Ab", 404, "no decision for request id 'a\\nb'"),
    ],
)
def test_what_cannot_be_answered_is_one_line(query: str, status: int, line: str) -> None:
    with serving(ring_of(record())) as port:
        got, headers, body = get(port, query)
    assert got == status
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert line in body.decode()
    assert body.count(b"\n") == 1


def test_methods() -> None:
    with serving(ring_of(record())) as port:
        status, headers, body = get(port, "?limit=1", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) == len(get(port, "?limit=1")[2])
        for method in ("POST", "PUT", "DELETE"):
            status, headers, body = get(port, "", method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")
            assert body == f"{PATH} answers GET and HEAD, not {method}\n".encode()


def test_switched_off() -> None:
    with serving(ring_of(record()), on=False) as port:
        assert get(port)[0] == 404


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.service.debugpages.MOST_BYTES", 5_000)
    with serving(ring_of(*[record(f"id-{n}") for n in range(100)])) as port:
        document = json.loads(get(port, "?limit=100&full=1")[2])
    assert document["truncated"] is True
    assert 1 <= len(document["decisions"]) < 10


def test_an_id_of_bytes_that_are_no_text_is_told_as_json() -> None:
    ring = ring_of(record(b"\xff\xfe".decode("utf-8", "surrogateescape")))
    with serving(ring) as port:
        assert len(json.loads(get(port)[2])["decisions"]) == 1


def test_reading_while_decisions_are_made_is_consistent() -> None:
    ring = DecisionRing(max_records=50)
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            numbers = [one.number for one in ring.last(50)]
            if numbers != sorted(numbers, reverse=True) or (numbers and numbers[0] - numbers[-1] != len(numbers) - 1):
                wrong.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    template = record().decision
    for _ in range(20_000):
        ring.add(Record(template, 0.0, 0.0, 0.0, 0.0))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def run(capsys: Any, *argv: str) -> tuple[int, str, str]:
    code = main(["explain", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_explain_says_it_in_plain_words(capsys: Any) -> None:
    one = record("id-7", scorers=("prefix-cache-scorer", "load-aware-scorer", "a-third-one"))
    one.completion = Completion(Cause.COMPLETE, True, 200, Usage(24, 178, None, 16), 1.25, 0.05, 999)
    one.told_by = "log"
    with serving(ring_of(record("earlier"), one), FakeClock(1003.0)) as port:
        code, out, err = run(capsys, "id-7", "--url", f"http://{HOST}:{port}")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= WIDTH
    text = " ".join(out.split())
    for words in (
        "request id-7",
        "2027-01-15 07:59:57.000 UTC, 3 s ago",
        "sent to default/pod-1 at 127.0.1.2:8000",
        "filter warm dropped 1 of 4: default/pod-3",
        "default/pod-1 had the most, 4.500; runner-up default/pod-2 had 3.000: 1.500 less",
        "[3] a-third-one, times 2",
        "> default/pod-1 4.500 0.750 / 1.500 0.750 / 1.500",
        "charged: 1 request and 96 uncached prompt tokens, on top of 0 requests and 0 tokens in flight there",
        "it ended after 1.25 s with status 200, first byte after 50 ms, 999 bytes",
        "the endpoint counted 24 prompt tokens, 16 of them from its cache, 178 output tokens",
        "told by Envoy's access log",
    ):
        assert words in text, words


@pytest.mark.parametrize("count", [1, 2, 40])
def test_explain_fits_80_columns_whatever_the_names(count: int) -> None:
    names = [f"a-scorer-with-quite-a-long-name-{n}" for n in range(7)]
    one = record("x" * 36, count=count, scorers=names, model="org/" + "model-" * 30)
    text = explain(one.as_dict(1000.0, 1e9, full=True))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ("and 28 more" in text) is (count == 40)
    everything = explain(one.as_dict(1000.0, 1e9, full=True), None)
    assert "more" not in everything.replace("40 candidates", "")


def test_explain_lets_nothing_unprintable_through() -> None:
    text = explain(record("\x1b[2Jid\n2", model="a\x07b").as_dict(1000.0, 1e9, full=True))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "request \\x1b[2Jid\\n2" in text


def test_explain_last_and_json(capsys: Any) -> None:
    with serving(ring_of(*[record(f"id-{n}") for n in range(4)])) as port:
        url = f"{HOST}:{port}"
        _, out, _ = run(capsys, "--last", "2", "--url", url)
        assert [line for line in out.splitlines() if line.startswith("request")] == ["request id-2", "request id-3"]
        _, out, _ = run(capsys, "--url", url)
        assert out.startswith("request id-3")
        _, out, _ = run(capsys, "--last", "2", "--json", "--url", url)
        assert [d["request_id"] for d in json.loads(out)["decisions"]] == ["id-3", "id-2"]


def test_explain_says_what_is_wrong_in_one_line(capsys: Any) -> None:
    with (
        serving(ring_of(record())) as port,
        serving(DecisionRing()) as empty,
        serving(DecisionRing(), on=False) as off,
        answering(b"\x00\x00\x12\x04" + bytes(21)) as binary,
    ):
        cases = [
            (
                ["nobody", "--url", f"{HOST}:{port}"],
                1,
                "among the last 1 that are kept; ids are what the gateway sends",
            ),
            (["--url", f"{HOST}:{empty}"], 1, "has made no decision yet"),
            (["--url", f"{HOST}:{off}"], 1, "that runs with --debug-endpoints=false"),
            (["--url", f"http://{HOST}:{port}/healthz"], 1, "is no endpoint picker of this kind"),
            (["--url", f"http://{HOST}:1"], 1, "no picker answers at http://127.0.0.1:1: Connection refused"),
            (["--url", "ftp://x"], 2, "--url ftp://x must be the picker's metrics port"),
            (["--url", f"http://{HOST}:abc"], 2, "must be the picker's metrics port"),
            (["--url", "http://[::1"], 2, "must be the picker's metrics port"),
            (["--url", f"http://{HOST}:1/a b"], 2, "must be the picker's metrics port"),
            (["--url", "http://a\nb"], 2, "must be the picker's metrics port"),
            (["--url", f"{HOST}:{binary}"], 1, "does not speak HTTP/1; give the picker's metrics port"),
            (["a", "--last", "1"], 2, "give a request id or --last, not both"),
            (["--last", "0"], 2, "'0' must be a whole number from 1 to 1000"),
            (["--nope"], 2, "epp explain --help tells the options"),
        ]
        for argv, wanted, line in cases:
            code, out, err = run(capsys, *argv)
            assert (code, out) == (wanted, ""), argv
            assert line in err
            assert err.count("\n") == 1
            assert err.startswith("epp: ")


def test_lengths_of_time() -> None:
    assert [seconds(value) for value in (0.0, 4e-5, 0.0123, 0.5, 1.25, 99.9, 1234.5)] == [
        "0 us", "40 us", "12.3 ms", "500 ms", "1.25 s", "99.9 s", "1234 s",
    ]  # fmt: skip


def test_the_limits_of_page_and_command_agree() -> None:
    from epp.service import explain as command

    assert command.MOST_DECISIONS == MOST_DECISIONS
    assert command.PATH == PATH


def test_a_picker_that_asks_for_a_token(tmp_path: Path, capsys: Any) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    page = DecisionsPage(ring_of(record()), FakeClock(), lambda: 0.0, lambda seconds: None)

    def review(shown: str, path: str, verb: str) -> Verdict:
        assert (path, verb) == (PATH, "get")
        return Verdict(200) if shown == "secret" else Verdict(401, "no")

    server = Admin(HOST, 0, MetricsRegistry(), lambda: None, {PATH: page}, review=review)
    with contextlib.closing(server):
        asked = ["explain", "id-1", "--url", f"{HOST}:{server.port}"]
        assert main([*asked, "--token-file", str(token)]) == 0
        assert "id-1" in capsys.readouterr().out
        assert main(asked) == 1
        error = capsys.readouterr().err
        assert "answers 401: this page asks for a Kubernetes token" in error
        assert "--token-file FILE" in error


@pytest.mark.parametrize(
    ("flag", "content", "line"),
    [
        ("--token-file", None, "cannot be read: No such file"),
        ("--token-file", "two words", "holds no token"),
        ("--token-file", "", "holds no token"),
        ("--token-file", "\x80", "cannot be read: it holds no token"),
        ("--ca-file", None, "cannot be used: No such file"),
        ("--ca-file", "junk", "cannot be used: "),
    ],
)
def test_files_that_cannot_be_used(flag: str, content: str | None, line: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert main(["explain", flag, str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{flag} {file} {line}" in error
    assert error.count("\n") == 1


def test_a_picker_that_speaks_tls(tmp_path: Path, capsys: Any) -> None:
    certificate, key = self_signed()
    write_pair(tmp_path, (certificate, key))
    page = DecisionsPage(ring_of(record()), FakeClock(), lambda: 0.0, lambda seconds: None)
    server = Admin(HOST, 0, MetricsRegistry(), lambda: None, {PATH: page}, tls=TlsSource(tmp_path))
    with contextlib.closing(server):
        asked = ["explain", "id-1", "--url", f"https://localhost:{server.port}"]
        assert main(asked) == 1
        assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err
        assert main([*asked, "--ca-file", str(tmp_path / "tls.crt")]) == 0
