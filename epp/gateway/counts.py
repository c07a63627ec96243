# SPDX-License-Identifier: Apache-2.0
"""What the gateway process counts. Labels are bounded: models by the configuration, the rest by the code."""

from __future__ import annotations

from collections.abc import Iterator

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row

PASSED = "passed"
"""Sent on; its answer is not followed here."""
COMPLETE = "complete"
"""Answered with 2xx, to its end."""
FAILED = "failed"
"""Answered with another status, to its end."""
ABORTED = "aborted"
"""The client, Envoy or the backend went away before the end."""
REFUSED = "refused"
ANSWERED = "answered"
"""Answered here: the list of models."""

_REQUESTS = Family(
    "counter",
    "Requests by model and by how they ended.",
    (Name("epp_gateway_requests_total", ("model", "outcome")),),
)
_REFUSED = Family("counter", "Requests refused, by reason.", (Name("epp_gateway_refused_total", ("reason",)),))
_OPEN = Family("gauge", "Requests that are being looked at.", (Name("epp_gateway_streams_open", ()),))
_RELOADS = Family("counter", "New versions of the configuration taken.", (Name("epp_gateway_reloads_total", ()),))


class Counts(FamilyCollector):
    """Counted on the event loop, read by the metrics page from any thread."""

    def __init__(self) -> None:
        self.open = 0
        self.reloads = 0
        self._requests: dict[tuple[str, str], int] = {}
        self._refused: dict[str, int] = {}

    def ended(self, model: str, outcome: str) -> None:
        """A request for `model`, a label, is over."""
        key = (model, outcome)
        self._requests[key] = self._requests.get(key, 0) + 1

    def refused(self, reason: str) -> None:
        """A request was refused; it ends as such, too."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """All of it."""
        requests = self._requests.copy()
        yield _REQUESTS, [({"model": model, "outcome": outcome}, n) for (model, outcome), n in requests.items()]
        yield _REFUSED, [({"reason": reason}, n) for reason, n in self._refused.copy().items()]
        yield _OPEN, [({}, self.open)]
        yield _RELOADS, [({}, self.reloads)]
