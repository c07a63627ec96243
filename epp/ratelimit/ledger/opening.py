# SPDX-License-Identifier: Apache-2.0
"""From a URL to a ledger. The libraries are imported here, when one is asked for: they are the extra `ratelimit`."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from epp.contract.metering import Meter, NoMeter
from epp.contract.redisurl import SCHEMES
from epp.ratelimit.errors import LedgerError
from epp.ratelimit.ledger.contract import Ledger, OnFailure, Window

MOST_COUNTERS = 1_000_000
TIMEOUT_S = 0.1
_REMEDY = "; run `pip install '.[ratelimit]'` in the source folder"


def open_ledger(
    url: str | None,
    *,
    window: Window = Window.FIXED,
    on_failure: OnFailure = OnFailure.ALLOW,
    clock: Callable[[], float] = time.time,
    meter: Meter | None = None,
    most_counters: int = MOST_COUNTERS,
    timeout_s: float = TIMEOUT_S,
    prefix: str = "epp",
) -> Ledger:
    """Counters in memory (`url` None) or at `url`: redis://, rediss://, valkey://, valkeys:// (host, port, user,
    password, /database), unix:///path/to.sock?db=0.

    * most_counters: of a ledger in memory; what would be one more is not counted, and `on_failure` answers
    * timeout_s: how long the store may take for one answer; prefix: of its keys

    Raises `LedgerError` for a URL that cannot be used, or without the libraries. Nothing is connected before `start`.
    """
    meter = meter or NoMeter()
    try:
        if url is None or url == "memory://":
            from epp.ratelimit.ledger.memory import MemoryLedger

            return MemoryLedger(window, on_failure, clock, meter, most_counters)
        if urlsplit(url).scheme not in SCHEMES:
            raise LedgerError(
                f"rate limit storage: scheme {urlsplit(url).scheme!r} is not known; "
                f"allowed: {', '.join(scheme + '://' for scheme in SCHEMES)}, or none for memory"
            )
        from epp.ratelimit.ledger.shared import SharedLedger

        return SharedLedger(url, window, on_failure, clock, meter, timeout_s=timeout_s, prefix=prefix)
    except ModuleNotFoundError as error:
        raise LedgerError(f"rate limits need the package {error.name!r}, which is not installed{_REMEDY}") from None
