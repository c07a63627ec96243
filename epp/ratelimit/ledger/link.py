# SPDX-License-Identifier: Apache-2.0
"""The connection to Redis or Valkey, as the library `limits` makes it with redis-py, and the one thing done over it.

Of the library's two clients, redis-py is the one that closes a connection whose command was given up, and that is kept
by the makers of the store. Its own retries are off: the ledger knows better what may be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from limits.aio.storage.redis import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.errors import ConfigurationError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from epp.ratelimit.errors import LedgerError
from epp.ratelimit.ledger.script import Post, arguments, source

CONNECT_TIMEOUT_S = 2.0
_DEFAULT_PORT = 6379


class StoreAway(Exception):
    """The store did not answer in time, cannot be reached, or refuses; `str()` is one line."""


class Link:
    """Sends batches. `place` is for messages: no user, no password."""

    def __init__(self, url: str, prefix: str, *, sliding: bool) -> None:
        self.place, plain = _read(url)
        self._sliding = sliding
        try:
            storage = RedisStorage(
                f"async+{plain}",
                implementation="redispy",
                key_prefix=prefix,
                socket_timeout=None,  # type: ignore[arg-type]  # whoever calls has the clock
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
                protocol=2,
                decode_responses=False,
            )
        except (ConfigurationError, ValueError) as error:
            raise LedgerError(f"rate limit storage {self.place}: {error}; write redis://HOST:PORT/DATABASE") from None
        assert isinstance(storage.bridge, RedispyBridge)
        self._prefixed = storage.bridge.prefixed_key
        self._client = cast(Any, storage.bridge.get_connection())
        self._script = self._client.register_script(source())
        self._seen_key = self._prefixed(f"seen:{secrets.token_hex(8)}")

    async def send(self, number: int, posts: Sequence[Post], timeout_s: float) -> list[object]:
        """Book a batch: one answer each, None for a counter that cannot be one (a key of somebody else's).

        Raises `StoreAway`; the connection is closed then, and the batch is in doubt.
        """
        keys, args = arguments(number, self._seen_key, posts, self._sliding, self._prefixed)
        answers: list[object] = await self._within(timeout_s, self._script(keys, args))
        return answers

    async def connect(self, timeout_s: float) -> None:
        """Try whether somebody is there. Raises `StoreAway`."""
        await self._within(timeout_s, self._client.ping())

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.aclose()

    async def _within(self, timeout_s: float, asked: Awaitable[Any]) -> Any:
        # Whatever the client raises, an error of its own included, the store could not be asked: no call may hang.
        try:
            async with asyncio.timeout(timeout_s):
                return await asked
        except Exception as error:
            with contextlib.suppress(Exception):
                await self._client.connection_pool.disconnect(inuse_connections=True)
            if isinstance(error, TimeoutError) and not str(error):
                raise StoreAway(f"no answer within {timeout_s:g} s") from None
            raise StoreAway(_words(error)) from error


def _words(error: Exception) -> str:
    said = " ".join(str(error).split())[:200].rstrip(".")
    # A server that wants a password first says so to short commands alone; a long one breaks its protocol, it says.
    if "Authentication required" in said or "unauthenticated" in said:
        return "it asks for a password: give one in the URL"
    return said or type(error).__name__


def _read(url: str) -> tuple[str, str]:
    """What to call the store, and the URL as the library wants it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError as error:
        raise LedgerError(f"rate limit storage: not a URL: {error}; write redis://HOST:PORT/DATABASE") from None
    if parts.scheme == "unix":
        if not parts.path:
            raise LedgerError("rate limit storage: unix:// without a path; write unix:///path/to.sock?db=0")
        return f"unix://{parts.path}", f"redis+{url}"
    if not host:
        raise LedgerError(f"rate limit storage: {parts.scheme}:// without a host; write redis://HOST:PORT/DATABASE")
    # "valkeys" becomes "rediss": the protocol is the same.
    scheme = parts.scheme.replace("valkey", "redis")
    shown = f"[{host}]" if ":" in host else host
    user = parts.netloc.rpartition("@")[0]
    plain = SplitResult(scheme, f"{user}@{shown}:{port}" if user else f"{shown}:{port}", parts.path, parts.query, "")
    return f"{scheme}://{shown}:{port}{parts.path}", plain.geturl()
