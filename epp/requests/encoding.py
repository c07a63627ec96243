# SPDX-License-Identifier: Apache-2.0
"""Compressed request bodies, decoded for reading only: the original bytes are what is forwarded.

The output is capped by the body limit, so a small body that inflates without end costs no more than a large one.
"""

from __future__ import annotations

import zlib

from epp.contract.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def is_encoded(content_encoding: str | None) -> bool:
    """Whether a body with this header must be decoded to be read."""
    return content_encoding is not None and content_encoding.strip().lower() not in ("", "identity")


def decode(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """The body's plain bytes. Raises `UnsupportedEncoding`, `BodyTooLarge` or `BadRequest`."""
    name = content_encoding.strip().lower()
    wbits = _WBITS.get(name)
    if wbits is None:
        raise UnsupportedEncoding(
            f"content-encoding {name!r} cannot be read; send the body plain or with one of: gzip, deflate"
        )
    inflater = zlib.decompressobj(wbits)
    try:
        plain = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not valid {name}: {error}") from None
    if len(plain) > limit_bytes:
        raise BodyTooLarge(f"the {name} body inflates to more than {limit_bytes} bytes; raise --max-body-size")
    if not inflater.eof:
        raise BadRequest(f"the {name} body is cut off")
    if inflater.unused_data:
        raise BadRequest(f"the {name} body has more bytes after its end; send it as one {name} stream")
    return plain
