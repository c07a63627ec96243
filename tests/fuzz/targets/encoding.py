# SPDX-License-Identifier: Apache-2.0
"""Compressed request bodies.

* `decode` gives plain bytes within the limit or raises a `RequestError` of one line.
* What it gives is what zlib gives for the whole body at once, with nothing left over.
* A body that zlib reads whole, within the limit, is not refused.
"""

from __future__ import annotations

import gzip
import zlib

from epp.contract.errors import RequestError
from epp.requests.encoding import decode, is_encoded
from tests.fuzz.harness import Input, Run, Target, one_line

LIMIT_BYTES = 4096
_NAMES = {"gzip": 31, "x-gzip": 31, "deflate": 15, " GZip ": 31, "br": 0, "gzip, gzip": 0, "": 0, "\udcff\n": 0}


def _make() -> Run:
    names = list(_NAMES)

    def run(data: bytes) -> None:
        source = Input(data)
        name = names[source.byte() % len(names)]
        body = source.rest()
        assert is_encoded(name) == bool(name)
        expected = _whole(body, _NAMES[name])
        try:
            plain = decode(body, name, LIMIT_BYTES)
        except RequestError as error:
            one_line(error)
            assert expected is None or len(expected) > LIMIT_BYTES
            return
        assert len(plain) <= LIMIT_BYTES
        assert plain == expected

    return run


def _whole(body: bytes, wbits: int) -> bytes | None:
    """What zlib makes of the body when it is one stream with nothing before or after."""
    inflater = zlib.decompressobj(wbits) if wbits else None
    try:
        plain = inflater.decompress(body) if inflater else b""
    except zlib.error:
        return None
    return plain if inflater and inflater.eof and not inflater.unused_data else None


def _seeds() -> list[bytes]:
    seeds = []
    for plain in (b"", b'{"model":"m","prompt":"hi"}', bytes(4096), bytes(4097), bytes(50_000)):
        packed = gzip.compress(plain, mtime=0)
        seeds += [b"\0" + packed, b"\2" + zlib.compress(plain), b"\0" + packed * 2, b"\3" + packed[:-3]]
    return seeds


TARGET = Target("encoding", _make, _seeds, (b"\x1f\x8b\x08", b"\x78\x9c", b"\0\0\xff\xff", b"\x03\0", b"\xff" * 4))
