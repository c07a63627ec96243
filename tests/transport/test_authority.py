# SPDX-License-Identifier: Apache-2.0
"""Authorities that libnghttp2 refuses, and Istio sends, arrive; all else passes byte for byte."""

from __future__ import annotations

import random
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngh2 import Configuration, Connection, RequestReceived, Role

from epp.transport.authority import STAND_IN, Authorities, mend, spelt
from tests.e2e.client import chat, post
from tests.e2e.stack import envoy, pods, serving
from tests.hostile.wire import DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PREFACE, PRIORITIZED, frame
from tests.hostile.wire import settings as told

ISTIO = "outbound|9002||vllm-epp.llm.svc.cluster.local"


def headers(authority: str) -> list[tuple[str, str]]:
    return [(":method", "POST"), (":scheme", "https"), (":path", "/p"), (":authority", authority), ("te", "trailers")]


def stream(blocks: list[bytes], body: bytes = b"AAAA") -> bytes:
    """A connection's bytes: one request for each header block."""
    frames = [PREFACE, told({})]
    for number, block in enumerate(blocks):
        frames += [frame(HEADERS, END_HEADERS, 2 * number + 1, block), frame(DATA, END_STREAM, 2 * number + 1, body)]
    return b"".join(frames)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in pieces."""
    places = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(12)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(
    authorities=st.lists(
        st.sampled_from([ISTIO, "outbound|80|v1|other.n.svc", "plain.n.svc:9002"]), min_size=1, max_size=8
    ),
    huffman=st.booleans(),
    rng=st.randoms(use_true_random=False),
)
def test_every_request_of_a_connection_arrives(authorities: list[str], huffman: bool, rng: random.Random) -> None:
    """The tables of both sides stay in step, whatever was said before, and however reads are cut."""
    encoder = hpack.Encoder()
    # What needs mending comes first, as a connection that begins well is not looked at any more.
    authorities = sorted(authorities, key=lambda name: "|" not in name)
    data = stream([encoder.encode(headers(name), huffman=huffman) for name in authorities])
    engine = Connection(Role.SERVER, Configuration())
    engine.initiate_connection()
    fit = Authorities(engine.receive_data)
    got: list[str] = []
    for piece in cut(data, rng):
        fit(piece)
        got += [spelt(dict(e.headers)[b":authority"]) for e in engine.events() if isinstance(e, RequestReceived)]
    assert got == authorities


@given(blocks=st.lists(st.binary(max_size=60), max_size=4), rng=st.randoms(use_true_random=False))
def test_what_needs_no_mending_passes_as_it_came(blocks: list[bytes], rng: random.Random) -> None:
    data = stream([hpack.Encoder().encode(headers("plain.n.svc:9002")), *blocks])
    passed: list[bytes] = []
    fit = Authorities(lambda piece: passed.append(bytes(piece)))
    for piece in cut(data, rng):
        fit(piece)
    assert b"".join(passed) == data


@settings(max_examples=300)
@given(block=st.binary(max_size=80), flags=st.integers(0, 255))
def test_no_block_raises(block: bytes, flags: int) -> None:
    """And what is mended is a frame whose length is right."""
    mended = mend(frame(HEADERS, flags, 1, block))
    assert mended is None or int.from_bytes(mended[:3], "big") == len(mended) - 9


@pytest.mark.parametrize("flags", [0, PADDED, PRIORITIZED, PADDED | PRIORITIZED])
@pytest.mark.parametrize("huffman", [True, False])
def test_padding_and_priority_stay(flags: int, huffman: bool) -> None:
    block = hpack.Encoder().encode(headers(ISTIO), huffman=huffman)
    before = (b"\x07" if flags & PADDED else b"") + (b"\0\0\0\0\x10" if flags & PRIORITIZED else b"")
    after = bytes(7) if flags & PADDED else b""
    mended = mend(frame(HEADERS, flags | END_HEADERS, 1, before + block + after))
    assert mended is not None
    payload = mended[9:]
    assert payload.startswith(before)
    assert payload.endswith(after)
    inside = payload[len(before) : len(payload) - len(after)]
    decoded = dict(hpack.Decoder().decode(inside))
    assert decoded[":authority"] == ISTIO.replace("|", STAND_IN)
    assert decoded["te"] == "trailers"


def test_a_long_authority_keeps_its_length() -> None:
    name = "outbound|9002||" + "a" * 400
    mended = mend(frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(headers(name))))
    assert mended is not None
    assert dict(hpack.Decoder().decode(mended[9:]))[":authority"] == name.replace("|", STAND_IN)


@pytest.mark.envoy
@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
def test_istios_cluster_name_is_an_authority(transport: str) -> None:
    def rename(part: Any) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                if key in ("cluster_name", "name") and value == "epp":
                    part[key] = ISTIO
                else:
                    rename(value)
            part.pop("authority", None)
        elif isinstance(part, list):
            for value in part:
                rename(value)

    with pods("127.0.0.1:0") as served:
        flags = (f"--endpoints={served.addresses[0]}", f"--transport={transport}")
        with serving(*flags) as epp, envoy(epp.port, adapt=rename) as gateway:
            answers = [post(gateway.port, chat(f"{n}")).status for n in range(20)]
            assert answers == [200] * 20
            assert epp.complaints() == []
