# SPDX-License-Identifier: Apache-2.0
"""URLs of Redis and Valkey, as people give them. They may hold a password, so no mistake shows any of one."""

from __future__ import annotations

from urllib.parse import urlsplit

from epp.contract.errors import UsageError

REDIS_VARIABLE = "REDIS_URL"
"""The environment variable for one, so that a password is not in the list of processes."""
SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_ALLOWED = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], the same with rediss, valkey or valkeys, or unix:///PATH"


def redis_url(text: str) -> str | None:
    """`text` as a URL; a bare `HOST:PORT` is one of redis://, as in the Go rate limit service. None for "". Raises
    `UsageError` for one that nobody could connect to."""
    if not text:
        return None
    url = text if "://" in text else f"redis://{text}"
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        usable = parts.scheme in SCHEMES and bool(place) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"the URL of Redis cannot be used; give {_ALLOWED}")
    return url
