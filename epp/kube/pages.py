# SPDX-License-Identifier: Apache-2.0
"""One page of a list: bytes to objects, where an object that cannot be read costs only itself."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from epp.kube.answers import Request, unreadable
from epp.kube.watch import Malformed, loose_identity, why_malformed

T = TypeVar("T")


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, Generic[T]):
    items: list[T] | None = None
    metadata: _ListMeta = _ListMeta()


class PageDecoder(Generic[T]):
    """Reads the pages of one list."""

    def __init__(self, request: Request, decode: type[T], malformed: Malformed | None) -> None:
        self._request = request
        self._whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Page[decode], strict=False)  # type: ignore[valid-type]
        self._object: msgspec.json.Decoder[T] = msgspec.json.Decoder(decode, strict=False)
        self._malformed = malformed

    def read(self, body: bytes) -> tuple[list[T], str, str]:
        """Objects, the list's resource version, and the token of the next page, "" after the last.

        Raises `ApiError` when it is no list at all.
        """
        try:
            page = self._whole.decode(body)
            return page.items or [], page.metadata.resource_version, page.metadata.continue_ or ""
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            loose = msgspec.json.decode(body, type=_Page[msgspec.Raw], strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise unreadable(self._request, "what came is no list") from None
        return self._each(loose.items or []), loose.metadata.resource_version, loose.metadata.continue_ or ""

    def _each(self, items: list[msgspec.Raw]) -> list[T]:
        good = []
        for raw in items:
            try:
                good.append(self._object.decode(raw))
            except (msgspec.DecodeError, UnicodeDecodeError):
                if self._malformed is not None:
                    self._malformed(loose_identity(raw)[0], why_malformed(self._object, raw))
        return good
