# SPDX-License-Identifier: Apache-2.0
"""What an `:authority` says: the Service, or the pool, that Envoy believes it is talking to.

Envoy sends what its `envoy_grpc.authority` says, else the name of the cluster. Gateways write, for a pool `p` in
namespace `n` whose endpoint picker is the Service `s` with port 9002:

    Envoy AI Gateway, Envoy Gateway    s.n.svc:9002; cluster envoy.clusters.endpointpicker_p_n_ext_proc
    kgateway                           s.n.svc:9002, s.n.svc.cluster.local:9002; cluster endpointpicker_p_n_ext_proc
    Istio                              cluster outbound|9002||s.n.svc.cluster.local
    written by hand                    any of s, s.n, s.n.svc, s.n.svc.cluster.local, with or without the port

A cluster's domain may be another than cluster.local, so whatever follows `.svc.` is taken for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LONGEST = 512
_PORT = re.compile(r"(?P<host>.*?):(?P<port>[0-9]{1,5})")
_ISTIO = re.compile(r"outbound_?[|.](?P<port>[0-9]{1,5})[|_.]+(?:[^|]*\|)?(?P<host>[^|]+)")
_GENERATED = re.compile(r"(?:envoy\.clusters\.)?endpointpicker_(?P<pool>[^_]+)_(?P<namespace>[^_]+)_ext_proc")
_SERVICE = re.compile(r"(?P<service>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)(?:\.svc(?:\..*)?)?")


class Said(NamedTuple):
    """What an authority names: a Service (`namespace` "" where it is not said, `port` 0), or a pool itself."""

    name: str
    namespace: str = ""
    port: int = 0
    is_pool: bool = False


def read_authority(authority: str) -> Said | None:
    """What `authority` names; None for what can be no Service, as an IP address."""
    text = authority.strip().lower()
    if not text or len(text) > _LONGEST:
        return None
    generated = _GENERATED.fullmatch(text)
    if generated is not None:
        return Said(generated["pool"], generated["namespace"], is_pool=True)
    found = _ISTIO.fullmatch(text) or _PORT.fullmatch(text)
    host, port = (found["host"], int(found["port"])) if found is not None else (text, 0)
    host = host.rstrip(".")
    if _is_address(host) or host == "localhost":
        return None
    if "." not in host:
        return Said(host, port=port) if host else None
    service = _SERVICE.fullmatch(host)
    return Said(service["service"], service["namespace"], port) if service is not None else None


def _is_address(host: str) -> bool:
    return host.startswith("[") or ":" in host or host.replace(".", "").isdigit()
