# SPDX-License-Identifier: Apache-2.0
"""What answers a call of something that is not served: UNIMPLEMENTED, naming the path."""

from __future__ import annotations

from epp.transport.call import UNIMPLEMENTED, Call, Metadata, Reply


class _Ended:
    """A call that is over before its first message."""

    __slots__ = ()

    def message(self, data: bytes) -> None:
        """Never called."""

    def half_closed(self) -> None:
        """Never called."""

    def cancelled(self, reason: str) -> None:
        """Never called."""


_ENDED = _Ended()


def unserved(metadata: Metadata, reply: Reply) -> Call:
    """The `Service` of every path that has none."""
    reply.finish(UNIMPLEMENTED, f"{metadata.path!r} is not served here")
    return _ENDED
