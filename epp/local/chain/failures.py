# SPDX-License-Identifier: Apache-2.0
"""Why a request was not answered as it should, in words, from an entry of Envoy's access log.

Flags, details and reasons of transports are Envoy's (its documentation of access logs); words with underscores are
codes of the gateway process, words in capitals those of an endpoint picker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_LONGEST = 80
_CLIENT_LEFT = {"DC", "DR"}
_CODES: Mapping[str, str] = {
    "body_missing": "no body",
    "invalid_json": "the body is no JSON object",
    "model_missing": "no model",
    "path_unknown": "no such path",
}
_UPSTREAM: Mapping[str, str] = {
    "UT": "timed out after {after}",
    "SI": "timed out after {after} of silence",
    "UMSDR": "timed out after {after}",
    "DT": "timed out after {after}",
    "UC": "{upstream} closed the connection",
    "UR": "{upstream} broke off",
    "UPE": "{upstream} does not answer in HTTP",
    "UH": "no server is there",
    "DF": "the server's name has no address",
    "LR": "broken off by Envoy",
    "DPE": "the client does not keep to HTTP",
    "NC": "no such cluster",
}

Value = Callable[[str], str]
"""A field of an entry as text, "" where it says nothing."""


def flags(value: Value) -> frozenset[str]:
    """Envoy's response flags."""
    return frozenset(filter(None, value("flags").split(",")))


def client_left(value: Value) -> bool:
    """It did not wait for the end of its answer."""
    return not flags(value).isdisjoint(_CLIENT_LEFT)


def failure(value: Value, *, charged: bool) -> str:
    """One reason, "" for a request that nothing is wrong with, or that its server refused. `charged`: tokens were."""
    found = flags(value)
    if client_left(value):
        return "the client left" if charged else "the client left: no tokens charged"
    if "UF" in found:
        return _no_connection(value)
    fields = {"upstream": value("upstream") or "the server", "after": f"{_number(value('duration_ms')) / 1e3:.3g} s"}
    for flag, words in _UPSTREAM.items():
        if flag in found:
            return words.format_map(fields)
    return _refusal(value) or ",".join(sorted(found))


def _no_connection(value: Value) -> str:
    upstream, reason = value("upstream") or "the server", value("failure").replace("_", " ")
    if "certificate verify failed" in reason.lower():
        names = re.search(r"SANs are \[([^]]*)\]", reason)
        if names is not None:
            return f"the certificate of {upstream} is for another name: {_short(names[1]) or 'none'}"
        why = re.search(r"depth \d+: ?([^:]+)", reason) or re.search(r"verify cert failed: ?([^:]+)", reason)
        return f"the certificate of {upstream} is not trusted" + (f": {_short(why[1])}" if why else "")
    if "TLS error" in reason:
        code = [part for part in reason.split(":") if part.strip() and part.strip() != "TLS error end"]
        return f"no TLS with {upstream}: {_short(code[-1])}"
    if "Connection refused" in reason:
        return f"connection refused by {upstream}"
    if "timeout" in value("details"):
        return f"no connection to {upstream} in {_number(value('duration_ms')) / 1e3:.3g} s"
    return f"no connection to {upstream}" + (f": {_short(reason.rpartition(':')[2])}" if reason else "")


def _refusal(value: Value) -> str:
    """Why Envoy or a part of ours answered in the place of a server."""
    details, route = value("details"), value("route")
    if details == "direct_response":
        _, without, header = route.rpartition("/without/")
        if without:
            return f"no {header}"
        if value("status") == "404":
            return "no route has this model" if value("model") else "no route"
        return "the route has no backend"
    if details.startswith("ext_proc"):
        part = "the endpoint picker" if value("model") else "the gateway process"
        return f"{part} {'is away' if 'connection_failure' in details or 'error_14' in details else 'fails'}"
    if details in ("", "via_upstream") or _number(value("status")) < 400:
        return ""
    if details[0].isupper():
        return f"the endpoint picker: {re.sub('(?<=[a-z])(?=[A-Z])', ' ', details).lower()}"
    return _CODES.get(details) or _short(details.replace("_", " "))


def _short(text: str) -> str:
    return text.strip()[:_LONGEST]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
