# SPDX-License-Identifier: Apache-2.0
"""A watch without a socket: bytes as they come in, events out.

The stream is one JSON object a line, cut anywhere. An object that cannot be read never costs the others: it is told,
and the event only moves the resource version. The resource version of the last event is where a watch can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from epp.kube.answers import Request, read_status, refusal, unreadable
from epp.kube.objects import Meta

MOST_LINE_BYTES = 32 * 1024 * 1024
"""An API server stores objects of 1.5 MiB at most; a longer line is no event."""

Malformed = Callable[[str, str], None]
"""`malformed(key, line)`: the object of this key, "namespace/name", cannot be read; the line says why."""


class Named(Protocol):
    """An object with metadata."""

    @property
    def metadata(self) -> Meta:
        """Its name and more."""


N = TypeVar("N", bound=Named)


@dataclass(frozen=True, slots=True)
class Event(Generic[N]):
    """What happened to one object.

    * object: None in a BOOKMARK, which only moves the resource version, and in a DELETED whose object was malformed
    * key: "namespace/name", "" in a BOOKMARK
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: N | None
    resource_version: str
    key: str = ""


class _Event(msgspec.Struct, Generic[N]):
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: N


class _AnyEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _AnyObject(msgspec.Struct):
    metadata: dict[str, Any] | None = None


class Lines:
    """Cuts a stream into lines. A line's pieces are joined once, however many there are."""

    __slots__ = ("_held_bytes", "_most_bytes", "_pieces")

    def __init__(self, most_bytes: int = MOST_LINE_BYTES) -> None:
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._most_bytes = most_bytes

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in this chunk, without their ends, but for blank ones. `OverflowError` over the bound."""
        first, *rest = chunk.split(b"\n")
        self._hold(first)
        for piece in rest:
            line = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
            self._hold(piece)
            if line.strip():
                yield line

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        if self._held_bytes > self._most_bytes:
            raise OverflowError(f"a line is longer than {self._most_bytes} bytes")
        if piece:
            self._pieces.append(piece)


class WatchDecoder(Generic[N]):
    """Chunks of one watch's answer to events."""

    def __init__(
        self,
        request: Request,
        decode: type[N],
        *,
        malformed: Malformed | None = None,
        most_line_bytes: int = MOST_LINE_BYTES,
    ) -> None:
        self._request = request
        self._lines = Lines(most_line_bytes)
        self._decoder: msgspec.json.Decoder[_Event[N]] = msgspec.json.Decoder(_Event[decode], strict=False)  # type: ignore[valid-type]
        self._object: msgspec.json.Decoder[N] = msgspec.json.Decoder(decode, strict=False)
        self._malformed = malformed

    def feed(self, chunk: bytes) -> Iterator[Event[N]]:
        """The events that end in this chunk.

        Raises `Gone` when the server cannot go on from our resource version, and other `ApiError` for its other errors
        and for a stream that is none; the events before are handed out first.
        """
        try:
            for line in self._lines.feed(chunk):
                event = self._read(line)
                if event is not None:
                    yield event
        except OverflowError as error:
            raise unreadable(self._request, str(error)) from None

    def _read(self, line: bytes) -> Event[N] | None:
        try:
            found = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._read_slowly(line)
        metadata = found.object.metadata
        return Event(found.type, found.object, metadata.resource_version, key_of(metadata))

    def _read_slowly(self, line: bytes) -> Event[N] | None:
        """Bookmarks, errors, and what is not as it should be."""
        try:
            found = msgspec.json.decode(line, type=_AnyEvent)
            key, version = loose_identity(found.object)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise unreadable(self._request, "what came is no watch event") from None
        if found.type == "ERROR":
            status = read_status(bytes(found.object))
            raise refusal(self._request, status.code, status, {}, "our credential")
        if found.type == "BOOKMARK":
            return Event("BOOKMARK", None, version)
        if found.type not in ("ADDED", "MODIFIED", "DELETED"):
            return None
        if found.type == "DELETED":
            return Event("DELETED", None, version, key)
        if self._malformed is not None:
            self._malformed(key, why_malformed(self._object, found.object))
        return Event("BOOKMARK", None, version)


def key_of(metadata: Meta) -> str:
    """`namespace/name`; objects without a namespace have the bare name with a leading slash."""
    return f"{metadata.namespace}/{metadata.name}"


def loose_identity(raw: msgspec.Raw) -> tuple[str, str]:
    """Key and resource version of an object of which nothing else need be right. Raises `msgspec.DecodeError`."""
    try:
        metadata = msgspec.json.decode(raw, type=_AnyObject).metadata or {}
    except msgspec.ValidationError:
        metadata = {}
    namespace, name, version = (metadata.get(field) for field in ("namespace", "name", "resourceVersion"))
    texts = [text if isinstance(text, str) else "" for text in (namespace, name, version)]
    return f"{texts[0]}/{texts[1]}", texts[2]


def why_malformed(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> str:
    """What is wrong with an object, without its content."""
    try:
        decoder.decode(raw)
    except msgspec.ValidationError as error:
        return str(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "it holds text that is not UTF-8"
    return "its event cannot be read"
