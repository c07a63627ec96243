# SPDX-License-Identifier: Apache-2.0
"""Prompt assembly: the byte stream over which prefix blocks are hashed.

The estimate back-end of llm-d's token-producer: no tokenizer; text bytes packed four at a time into little-endian u32
"tokens", zero padded at the end. Chat: the JSON of `tools`, then per message its role and its content, without
separators; `name`, `tool_calls` and `refusal` are left out. Every multimodal asset becomes a placeholder: padding to
a 4-byte boundary, then the low 32 bits of XXH64(URL or data) repeated once per estimated token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xxhash

IMAGE_TOKENS = 225
"""An image of unknown size counts as 640 x 360 pixels at 1024 pixels a token."""
VIDEO_TOKENS = 20 * IMAGE_TOKENS
"""Ten seconds at two sampled frames a second."""

ASSET_BYTES_LIMIT = 1 << 24
"""In a stream of this length (four million tokens) every further asset counts as one token: the estimate of some
twenty bytes of JSON is up to 18,000 bytes, so that a small body could fill the memory."""

Content = str | list[dict[str, Any]] | None


def text_stream(text: str | bytes) -> bytes:
    """Text as a u32 stream: its UTF-8 bytes, zero padded."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return data + bytes(-len(data) % 4)


def token_stream(tokens: Sequence[int]) -> bytes:
    """Token ids as a u32 stream; ids outside u32 wrap, they are only hashed."""
    return np.array(tokens, dtype=np.int64).astype("<u4").tobytes()


def json_stream(parts: Iterable[tuple[str, bytes]]) -> bytes:
    """Named JSON values as the stream of a JSON list of one-member objects."""
    return text_stream(b"[" + b",".join(b'{"%s":%s}' % (name.encode(), raw) for name, raw in parts) + b"]")


def chat_stream(tools: bytes, messages: Iterable[tuple[str, Content]]) -> bytes:
    """A chat as a u32 stream."""
    out = bytearray() if tools in (b"", b"null") else bytearray(tools)
    for role, content in messages:
        out += role.encode("utf-8", "surrogatepass")
        if isinstance(content, str):
            out += content.encode("utf-8", "surrogatepass")
        elif content:
            for block in content:
                _add_block(out, block)
    out += bytes(-len(out) % 4)
    return bytes(out)


def _add_block(out: bytearray, block: dict[str, Any]) -> None:
    kind = block.get("type")
    if kind == "text":
        text = block.get("text")
        if isinstance(text, str):
            out += text.encode("utf-8", "surrogatepass")
    elif kind == "image_url":
        add_asset(out, _url(block, "image_url"), IMAGE_TOKENS)
    elif kind == "video_url":
        add_asset(out, _url(block, "video_url"), VIDEO_TOKENS)
    elif kind == "input_audio":
        audio = block.get("input_audio")
        data = audio.get("data") if isinstance(audio, dict) else None
        fmt = audio.get("format") if isinstance(audio, dict) else None
        data = data if isinstance(data, str) else ""
        length = len(data) + (len(fmt) if isinstance(fmt, str) else 0)
        add_asset(out, data, max(1, -(-length // 4)))


def add_asset(out: bytearray, identity: str, tokens: int) -> None:
    """Append the placeholder of an image or the like, told from others by its URL or data."""
    out += bytes(-len(out) % 4)
    if len(out) >= ASSET_BYTES_LIMIT:
        tokens = 1
    mark = xxhash.xxh64_intdigest(identity.encode("utf-8", "surrogatepass")) & 0xFFFFFFFF
    out += mark.to_bytes(4, "little") * tokens


def _url(block: dict[str, Any], key: str) -> str:
    value = block.get(key)
    url = value.get("url") if isinstance(value, dict) else value
    return url if isinstance(url, str) else ""
