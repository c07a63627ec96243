# SPDX-License-Identifier: Apache-2.0
"""One call of the rate limit service: a request, its limits, their counters, a response.

The semantics are those of envoyproxy/ratelimit. A descriptor is over when its counter is above the limit after the
charge, so a user who stands at exactly 1,000 of 1,000 may look once more (`hits_addend` 0) and is not over. A counter
that is over goes on counting. The call is over when any descriptor is; of limits in quota mode, when every group is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epp.contract.metering import Meter, NoMeter
from epp.protos import rls_pb2
from epp.ratelimit.errors import BadCall, LedgerAway, NotReady
from epp.ratelimit.headers import headers_of
from epp.ratelimit.ledger.contract import LARGEST_AMOUNT, Charge, Ledger, OnFailure, Standing
from epp.ratelimit.limits import LARGEST_LIMIT
from epp.ratelimit.matching import Match, entries_of, find
from epp.ratelimit.rules import RuleBook
from epp.ratelimit.tally import Tally

Status = rls_pb2.RateLimitResponse.DescriptorStatus
_OK = rls_pb2.RateLimitResponse.OK
_OVER = rls_pb2.RateLimitResponse.OVER_LIMIT
_GROUP_KEYS = ("backend_name", "model_name_override")


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine answers.

    * headers: it adds response headers (Envoy makes x-ratelimit-* itself)
    * shadow: every call is answered OK (Go: SHADOW_MODE); counters and statistics go on
    """

    headers: bool = False
    shadow: bool = False


class Engine:
    """Answers calls from one ledger. `install` may be called at any time: a call under way keeps its rules."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
        meter: Meter | None = None,
        options: Options | None = None,
    ) -> None:
        self.ledger = ledger
        self._clock = clock
        self._tally = Tally(meter or NoMeter())
        self._options = options or Options()
        self.book: RuleBook | None = None

    def install(self, book: RuleBook) -> None:
        """Limit by `book` from the next call on. Counters stay: a limit that is raised does not forget."""
        self.book = book

    async def should_rate_limit(self, request: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        """The answer. Raises `BadCall`, `NotReady`, and `LedgerAway` where `on_failure` is ERROR."""
        try:
            response = await self._answer(request)
        except (BadCall, NotReady, LedgerAway):
            self._tally.call("error")
            raise
        over = response.overall_code == _OVER
        if over and self._options.shadow:
            response.overall_code = _OK
            self._tally.call("shadowed")
        else:
            self._tally.call("over_limit" if over else "ok")
        return response

    async def _answer(self, request: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        if not request.domain:
            raise BadCall("rate limit domain must not be empty")
        if not request.descriptors:
            raise BadCall("rate limit descriptor list must not be empty")
        if self.book is None:
            raise NotReady("no rate limit configuration loaded")
        matches = self._matches(self.book, request)
        charges = {
            index: _charge(match, descriptor, request.hits_addend)
            for index, (match, descriptor) in enumerate(zip(matches, request.descriptors, strict=True))
            if match and not match.limit.unlimited
        }
        standings = await self._book(charges)
        response = rls_pb2.RateLimitResponse(overall_code=_OK)
        for index, match in enumerate(matches):
            charge = charges.get(index)
            if match and charge:
                response.statuses.append(self._status(match, charge, standings[index]))
            else:
                response.statuses.append(Status(code=_OK, limit_remaining=LARGEST_LIMIT if match else 0))
        if _is_over(response.statuses, matches, request):
            response.overall_code = _OVER
            if not self._options.shadow:
                self._refuse(response.statuses, matches, request)
        if self._options.headers:
            response.response_headers_to_add.extend(headers_of(response.statuses))
        return response

    def _matches(self, book: RuleBook, request: rls_pb2.RateLimitRequest) -> list[Match | None]:
        if request.domain not in book.domains:
            self._tally.unknown_domain(request.domain)
            return [None] * len(request.descriptors)
        matches = [find(book, request.domain, descriptor) for descriptor in request.descriptors]
        replaced = {name for match in matches if match for name in match.limit.replaces}
        if not replaced:
            return matches
        return [
            None if match and not match.limit.unlimited and match.limit.name in replaced else match for match in matches
        ]

    def _refuse(
        self, statuses: Sequence[Status], matches: Sequence[Match | None], request: rls_pb2.RateLimitRequest
    ) -> None:
        """Count who refused. What a descriptor charges above 0 by itself is booked after an answer: nobody is refused
        then, whatever is over."""
        for status, match, descriptor in zip(statuses, matches, request.descriptors, strict=True):
            if match and status.code == _OVER and not descriptor.hits_addend.value:
                self._tally.refused(match)

    async def _book(self, charges: dict[int, Charge]) -> dict[int, Standing | None]:
        if not charges:
            return {}
        standings = await self.ledger.book(list(charges.values()), self._clock())
        return dict(zip(charges, standings, strict=True))

    def _status(self, match: Match, charge: Charge, standing: Standing | None) -> Status:
        amount, limit = charge.amount, match.limit
        (self._tally.refund if charge.refund else self._tally.hits)(match, amount)
        if standing is None:
            return self._unanswered(match, charge)
        over = standing.count > limit.requests and not charge.refund
        status = Status(code=_OVER if over and not limit.shadow else _OK, current_limit=limit.current)
        status.limit_remaining = max(0, limit.requests - standing.count)
        status.duration_until_reset.seconds = standing.reset_s
        if over:
            self._tally.over(match, amount, standing.count)
        elif not charge.refund:
            self._tally.within(match, amount, standing.count)
        return status

    def _unanswered(self, match: Match, charge: Charge) -> Status:
        # Without a current limit the proxy writes no headers: nobody knows what is left.
        on_failure = self.ledger.on_failure
        self._tally.unanswered(on_failure.value)
        if on_failure is OnFailure.ERROR:
            raise LedgerAway("the counters cannot be asked now")
        deny = on_failure is OnFailure.DENY and not match.limit.shadow and not charge.refund
        return Status(code=_OVER if deny else _OK)


def _charge(match: Match, descriptor: rls_pb2.RateLimitDescriptor, hits_addend: int) -> Charge:
    amount = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else max(1, hits_addend)
    return Charge(match.key, match.period_s, min(amount, LARGEST_AMOUNT), descriptor.is_negative_hits)


def _is_over(statuses: Sequence[Status], matches: Sequence[Match | None], request: rls_pb2.RateLimitRequest) -> bool:
    groups: dict[str, bool] = {}
    for status, match, descriptor in zip(statuses, matches, request.descriptors, strict=True):
        over = status.code == _OVER
        if match and match.limit.quota and not match.limit.unlimited:
            group = _group(descriptor)
            groups[group] = groups.get(group, False) or over
        elif over:
            return True
    return bool(groups) and all(groups.values())


def _group(descriptor: rls_pb2.RateLimitDescriptor) -> str:
    """Limits in quota mode of the same model at the same backend are one group; all else is a group of its own."""
    entries = entries_of(descriptor)
    named = {key: value for key, value in entries if key in _GROUP_KEYS}
    if any(named.values()):
        return repr([named.get(key, "") for key in _GROUP_KEYS])
    return repr(entries)
