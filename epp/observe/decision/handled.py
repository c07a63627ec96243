# SPDX-License-Identifier: Apache-2.0
"""The lines "Request handled", which endpoint got a request and why, and "Request ended".

The fields of the first up to `endpoint` are those of the Go EPP of GIE v0.5 (it printed `model` twice; once is enough),
which people read with `kubectl logs`; `why` is ours, and from -v 3 on `decision`, the same as numbers. The second
line is written from -v 3 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.contract.decision import Decision
from epp.contract.endpoints import Endpoint
from epp.observe.decision.record import Record
from epp.observe.log.logs import INFO, VERBOSE, Log


def criticality(priority: int) -> str:
    """GIE v0.5's word for a priority. "Critical" meant: never shed when the pool is saturated. That is what newer
    releases do from priority 0 on, and 0 is the default there as Critical was in KServe."""
    return "Critical" if priority >= 0 else "Sheddable"


def go_map(values: Mapping[str, str]) -> str:
    """A map as Go's `%v` prints it: `map[a:1 b:2]`, keys sorted."""
    return f"map[{' '.join([f'{key}:{values[key]}' for key in sorted(values)])}]"


def endpoint_text(endpoint: Endpoint) -> str:
    """An endpoint as Go's `%+v` prints its metadata in GIE v0.5."""
    name = f"{endpoint.namespace}/{endpoint.name}"
    return f"{{NamespacedName:{name} Address:{endpoint.ip} Labels:{go_map(endpoint.labels)}}}"


class RequestLog:
    """Writes the lines, with `pool` where that says one. Keeps the text of each endpoint by its row: as many texts as
    the pool has rows."""

    __slots__ = ("_log", "_pool", "_texts")

    def __init__(self, log: Log, caller: str = "director", pool: str = "") -> None:
        self._log = log.named(caller)
        self._pool = pool
        self._texts: dict[int, tuple[Endpoint, str]] = {}

    def handled(self, decision: Decision, priority: int = 0) -> None:
        """`decision` was made and its target charged."""
        if not self._log.enabled(INFO):
            return
        fields: dict[str, Any] = {
            "x-request-id": decision.request_id,
            "model": decision.model,
            "resolvedTargetModel": decision.target_model,
            "criticality": criticality(priority),
            "targetModel": decision.target_model,
            "endpoint": self._text(decision.target),
            "why": decision.explain(),
        }
        if self._pool:
            fields["pool"] = self._pool
        if self._log.enabled(VERBOSE):
            fields["decision"] = decision.as_dict()
        self._log.write(INFO, "Request handled", fields)

    def ended(self, record: Record) -> None:
        """The request that `record` tells of has ended."""
        if not self._log.enabled(VERBOSE):
            return
        decision = record.decision
        fields: dict[str, Any] = {
            "x-request-id": decision.request_id,
            "model": decision.model,
            "targetModel": decision.target_model,
            "endpointName": decision.target.id,
            "outcome": record.outcome(),
        }
        if self._pool:
            fields["pool"] = self._pool
        self._log.write(VERBOSE, "Request ended", fields)

    def _text(self, endpoint: Endpoint) -> str:
        known = self._texts.get(endpoint.row)
        # A row is given to another endpoint when its first one is gone; labels change with the object.
        if known is not None and known[0] is endpoint:
            return known[1]
        text = endpoint_text(endpoint)
        self._texts[endpoint.row] = (endpoint, text)
        return text
