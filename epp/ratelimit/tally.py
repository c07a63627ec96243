# SPDX-License-Identifier: Apache-2.0
"""What is counted for the metrics page, under the names of the Go service's statistics.

    epp_ratelimit_hits_total{rule,stat}   stat: total_hits, within_limit, near_limit, over_limit, shadow_mode,
                                          total_negative_hits (refunds)
    epp_ratelimit_refused_total{rule}     calls that were answered with over limit before a request was let through, by
                                          each rule that was over; not what is booked afterwards
    epp_ratelimit_calls_total{answer}     ok, over_limit, error, shadowed (over, but all limits are in shadow mode)
    epp_ratelimit_unknown_domain_total{domain}
    epp_ratelimit_unanswered_total{answer}  descriptors that were answered without their counter: allow, deny, error

Of a charge that goes over the limit only the part above it is over; the part between 0.8 of the limit and the limit is
near it.
"""

from __future__ import annotations

from epp.contract.metering import Meter
from epp.ratelimit.matching import Match


class Tally:
    """Counters of one engine."""

    def __init__(self, meter: Meter) -> None:
        self._hits = meter.counter(
            "epp_ratelimit_hits", "Hits on rate limits, by rule and by what became of them.", ("rule", "stat")
        )
        self._calls = meter.counter("epp_ratelimit_calls", "Calls of the rate limit service, by answer.", ("answer",))
        self._refused = meter.counter(
            "epp_ratelimit_refused", "Calls that refused a request, by the rule that was over.", ("rule",)
        )
        self._domains = meter.counter(
            "epp_ratelimit_unknown_domain", "Calls for a domain without rules.", ("domain",), most_series=100
        )
        self._unanswered = meter.counter(
            "epp_ratelimit_unanswered", "Descriptors that were answered without their counter.", ("answer",)
        )

    def call(self, answer: str) -> None:
        """One call."""
        self._calls.add((answer,))

    def refused(self, match: Match) -> None:
        """One call, of a request that is refused because of this limit."""
        self._refused.add((match.rule,))

    def unknown_domain(self, domain: str) -> None:
        """One descriptor of a domain that has no rules."""
        self._domains.add((domain,))

    def unanswered(self, answer: str) -> None:
        """One descriptor whose counter could not be asked."""
        self._unanswered.add((answer,))

    def hits(self, match: Match, amount: int) -> None:
        """`amount` hits on a limit, whatever becomes of them."""
        self._hits.add((match.rule, "total_hits"), amount)

    def refund(self, match: Match, amount: int) -> None:
        """`amount` hits taken back."""
        self._hits.add((match.rule, "total_negative_hits"), amount)

    def within(self, match: Match, amount: int, count: int) -> None:
        """They left the counter at `count`, not over the limit."""
        near = match.limit.near
        if count > near:
            self._hits.add((match.rule, "near_limit"), min(amount, count - near))
        self._hits.add((match.rule, "within_limit"), amount)

    def over(self, match: Match, amount: int, count: int) -> None:
        """They left the counter at `count`, over the limit."""
        before, requests = count - amount, match.limit.requests
        over = amount if before >= requests else count - requests
        if before < requests:
            self._hits.add((match.rule, "near_limit"), requests - max(match.limit.near, before))
        self._hits.add((match.rule, "over_limit"), over)
        if match.limit.shadow:
            self._hits.add((match.rule, "shadow_mode"), over)
