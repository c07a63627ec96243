# SPDX-License-Identifier: Apache-2.0
"""`header-based-testing-filter`: the client says who may be chosen. For conformance tests of gateways only: whoever
may send requests decides where they go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epp.api import (
    BoolArray,
    Endpoint,
    Endpoints,
    InferenceRequest,
    PluginContext,
    filter,  # noqa: A004 - the field's name
)

HEADER = "test-epp-endpoint-selection"

Known = dict[tuple[str, int], list[int]]
"""Rows by IP and port; port 0 stands for all of an IP."""


@filter("header-based-testing-filter")
class HeaderBasedTestingFilter:
    """Keeps the endpoints that the request's header `test-epp-endpoint-selection` names.

    Formula: a comma-separated list of `IP` (every port of it) and `IP:port`; IPv6 with or without brackets, with a port
    in brackets alone. A candidate is kept when something of the list names it; with `inTurn`, one of those alone: the
    next one of the list, request by request.
    Range: any subset of the candidates; the order of the list says nothing to what runs later.
    Reads: one header of the request.
    Cost: O(length of the list); an index of the addresses is made anew when the pool changes.
    Without data: without the header, or with an empty one, nobody is kept; everybody, if it is not `required` or the
    request has no body. What the pool does not have, and what is no address, is passed over.
    Origin: `header-based-testing-filter` of the Gateway API inference extension, which keeps one port of an IP, has no
    parameters and is not asked about requests without a body. `required: false` with `inTurn: true` is how the test
    picker there (lwepp) chooses.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* required: a request with a body but without the header finds no endpoint; false: any may be chosen for it
        * inTurn: keep a single one of the named endpoints, each in its turn, so that no score decides among them
        """

        required: bool = True
        inTurn: bool = False

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._required = parameters.required
        self._in_turn = parameters.inTurn
        self._turn = 0
        self._identities: Sequence[Endpoint | None] = ()
        self._known: Known = {}

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        """True for the candidates that are named."""
        named = request.headers.get(HEADER, "").strip()
        if not named and not (self._required and request.body_bytes):
            return np.ones(len(endpoints), dtype=np.bool_)
        known = self._rows_by_address(endpoints.identities)
        wanted = [row for item in named.split(",") for row in known.get(_address(item.strip()), ())]
        if self._in_turn and wanted:
            here = set(endpoints.rows.tolist())
            candidates = [row for row in dict.fromkeys(wanted) if row in here]
            wanted = candidates[self._turn % len(candidates) :][:1] if candidates else []
            self._turn += 1
        return np.isin(endpoints.rows, np.array(wanted, dtype=np.int64))

    def _rows_by_address(self, identities: Sequence[Endpoint | None]) -> Known:
        # Whoever changes the pool replaces the tuple.
        if identities is not self._identities:
            self._identities, self._known = identities, {}
            for endpoint in identities:
                if endpoint is not None and (ip := _canonical(endpoint.ip)):
                    for port in (0, endpoint.port):
                        self._known.setdefault((ip, port), []).append(endpoint.row)
        return self._known


def _address(text: str) -> tuple[str, int]:
    """IP and port, 0 for any; ("", 0), which nobody has, for what is no address."""
    host, port = text, ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and rest[0] != ":"):
            return "", 0
        port = rest
    elif text.count(":") == 1:
        host, colon, digits = text.partition(":")
        port = colon + digits
    if not port:
        return _canonical(host), 0
    digits = port[1:]
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        return "", 0
    return _canonical(host), int(digits)


def _canonical(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return ""
