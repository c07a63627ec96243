# SPDX-License-Identifier: Apache-2.0
"""The limit as headers of the response, for proxies that do not make them (Envoy does, as x-ratelimit-*).

Form of draft-ietf-httpapi-ratelimit-headers-03: `RateLimit-Limit: 1000, 1000;w=3600`, remaining and reset as numbers.
Of several descriptors the one that is over speaks (the last one of these), else the one with the least left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epp.protos import rls_pb2
from epp.ratelimit.limits import UNITS

_OVER = rls_pb2.RateLimitResponse.OVER_LIMIT


def headers_of(statuses: Sequence[rls_pb2.RateLimitResponse.DescriptorStatus]) -> Iterable[rls_pb2.HeaderValue]:
    """The headers, none where no status has a limit."""
    limited = [status for status in statuses if status.HasField("current_limit")]
    if not limited:
        return ()
    over = [status for status in limited if status.code == _OVER]
    status = over[-1] if over else min(limited, key=lambda one: one.limit_remaining)
    requests, unit = status.current_limit.requests_per_unit, UNITS[status.current_limit.unit]
    values = (
        ("RateLimit-Limit", f"{requests}, {requests};w={unit.value}"),
        ("RateLimit-Remaining", str(status.limit_remaining)),
        ("RateLimit-Reset", str(status.duration_until_reset.seconds)),
    )
    return [rls_pb2.HeaderValue(key=key, value=value) for key, value in values]
