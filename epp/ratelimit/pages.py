# SPDX-License-Identifier: Apache-2.0
"""Pages on the metrics port besides /metrics, /healthz and /readyz.

    /rlconfig       the rules in use, one line each, as the Go service writes them
    /debug/limits   the same as JSON, and where the counters are
    /healthcheck    the Go service's probe: 200 when ready, else 500

Rules are what the configuration says. What clients sent is on no page: no values, no counters of single users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from epp.admin.pages import Answer, Page
from epp.ratelimit.ledger import LedgerState
from epp.ratelimit.limits import Limit
from epp.ratelimit.rules import RuleBook

Rules = Mapping[str, Sequence[Limit]]
"""The limits of each domain, in the order of the files."""


def rules_of(book: RuleBook) -> Rules:
    """The limits of a book by domain."""
    return {domain: list(RuleBook({domain: rule}).limits()) for domain, rule in book.domains.items()}


def line_of(limit: Limit) -> str:
    """One rule, for people and for scripts that know the Go service's page."""
    if limit.unlimited or limit.unit is None:
        return f"{limit.rule}: unlimited"
    flags = f"shadow_mode: {str(limit.shadow).lower()}, quota_mode: {str(limit.quota).lower()}"
    label = f", label: {limit.label}" if limit.label else ""
    return f"{limit.rule}: unit={limit.unit.name} requests_per_unit={limit.requests}, {flags}{label}"


def text_of(rules: Rules) -> str:
    """All rules, a line each; a domain without any has one that says so."""
    return "".join(
        f"{line}\n"
        for domain, limits in rules.items()
        for line in ([line_of(limit) for limit in limits] or [f"{domain}: no limits"])
    )


def pages(
    rules: Callable[[], Rules], state: Callable[[], LedgerState], ready: Callable[[], str | None]
) -> dict[str, Page]:
    """The pages by path. `ready` says what is missing, None when nothing is."""

    def rlconfig(_query: str) -> Answer:
        return Answer("200 OK", "text/plain; charset=utf-8", text_of(rules()).encode())

    def limits(_query: str) -> Answer:
        told = state()
        document = {
            "storage": told.place,
            "window": told.window.value,
            "away": told.away,
            "counters": told.counters,
            "pending_charges": told.kept,
            "domains": {domain: [_shown(limit) for limit in found] for domain, found in rules().items()},
        }
        return Answer("200 OK", "application/json", orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")

    def healthcheck(_query: str) -> Answer:
        missing = ready()
        status = "200 OK" if missing is None else "500 Internal Server Error"
        return Answer(status, "text/plain; charset=utf-8", f"{'OK' if missing is None else missing}\n".encode())

    return {"/rlconfig": rlconfig, "/debug/limits": limits, "/healthcheck": healthcheck}


def _shown(limit: Limit) -> dict[str, Any]:
    shown: dict[str, Any] = {"rule": limit.rule}
    if limit.unlimited or limit.unit is None:
        return shown | {"unlimited": True}
    shown |= {"requests_per_unit": limit.requests, "unit": limit.unit.name.lower()}
    flags = {"shadow_mode": limit.shadow, "quota_mode": limit.quota, "detailed_metric": limit.detailed}
    names = {"name": limit.name, "label": limit.label}
    return shown | {name: True for name, on in flags.items() if on} | {key: text for key, text in names.items() if text}
