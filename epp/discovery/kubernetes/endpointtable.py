# SPDX-License-Identifier: Apache-2.0
"""From pods to endpoints, pod by pod, so that a change costs what changed.

A pod counts when its condition Ready is True, it is not being deleted and it has an address. It is one endpoint for
each target port, `<pod>-rank-<place of the port>`, also when there is one port: the names that the Go EPP shows. Those
of a pool of the group inference.networking.x-k8s.io, which has one port, bear the pod's own name, as the Go EPP of that
time shows them. So a pool that moves to its twin of the other group gets endpoints of other names, and what was known
of the old ones ends.

The annotation `llm-d.ai/active-ports` (formerly `inference.networking.k8s.io/active-ports`), a comma list, leaves out
the ports that it does not have; a rank keeps its number.

`incarnation` is the pod's UID and how often the containers were restarted that could hold the model and its cache:
those with an accelerator (an extended resource or a claim); if there is none, those that declare a target port; if
there is none either, all. So a restart of a proxy or a log shipper beside vLLM costs nothing, and where pods do not
tell, a restart too many is assumed rather than one too few: forgetting a cache costs one prefill, believing in a lost
one draws requests to the pod. Sidecars that are init containers have no part in it.

A pod that was Ready and is not for a moment keeps its endpoints, with `ready` False, as long as it is the same
incarnation, is not being deleted and has not come to its end. A pod that was never Ready is not listed: it is still
loading its model, and nothing would be known of it. Who was Ready before we came is not known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from epp.contract.discovery import EndpointSpec
from epp.contract.errors import DiscoveryError
from epp.discovery.address import SHOWN_CHARACTERS, parse_ip
from epp.discovery.kubernetes.objects import Container, ServingPod

log = logging.getLogger("epp.discovery")

ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""The annotation, then its former name."""
_SAID = 64
"""How many different faulty annotations are reported."""
_PORT = re.compile(r"[0-9]{1,5}")
_ENDED = ("Failed", "Succeeded")


def is_ready(pod: ServingPod) -> bool:
    """Whether requests may be sent to the pod."""
    return is_staying(pod) and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())


def is_staying(pod: ServingPod) -> bool:
    """Whether the pod is not being deleted and has not come to its end."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in _ENDED


def pod_ip(pod: ServingPod) -> str:
    """The pod's first address, "" when it has none yet, or what stands there is none. Of two families the cluster's
    first one counts.
    """
    try:
        return parse_ip(_told_ip(pod))
    except DiscoveryError:
        return ""


def _told_ip(pod: ServingPod) -> str:
    ips = pod.status.pod_ips
    return pod.status.pod_ip or (ips[0].ip if ips else "")


def active_ports(pod: ServingPod, ports: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The ports of `ports` that the pod serves, and the entries of its annotation that are none of them."""
    annotations = pod.metadata.annotations or {}
    text = next((annotations[key] for key in ACTIVE_PORTS if key in annotations), None)
    if text is None:
        return ports, ()
    wanted, bad = set(), []
    for entry in map(str.strip, text.split(",")):
        if _PORT.fullmatch(entry) and int(entry) in ports:
            wanted.add(int(entry))
        elif entry:
            bad.append(entry)
    return tuple(port for port in ports if port in wanted), tuple(bad)


def incarnation(pod: ServingPod, ports: tuple[int, ...]) -> str:
    """Changes when the pod's model server is another process."""
    counted = _cache_holders(pod.spec.containers or [], ports)
    statuses = pod.status.container_statuses or ()
    restarts = sum(status.restart_count for status in statuses if not counted or status.name in counted)
    return f"{pod.metadata.uid}/{restarts}"


def endpoints_of(
    pod: ServingPod, ports: tuple[int, ...], was_ready: str = "", *, ranked: bool = True
) -> tuple[EndpointSpec, ...]:
    """The pod's endpoints in the order of `ports`, none unless it has an address and is ready, or was in its present
    incarnation.

    * was_ready: the incarnation in which it was ready last
    * ranked: whether names have a rank; without there must be one port
    """
    ip, ready, life = pod_ip(pod), is_ready(pod), incarnation(pod, ports)
    if not ip or not (ready or (is_staying(pod) and life == was_ready)):
        return ()
    active, _ = active_ports(pod, ports)
    meta, labels = pod.metadata, MappingProxyType(pod.metadata.labels or {})
    return tuple(
        EndpointSpec(
            meta.namespace, f"{meta.name}-rank-{rank}" if ranked else meta.name, ip, port, labels, rank, life, ready
        )
        for rank, port in enumerate(ports)
        if port in active
    )


def _cache_holders(containers: list[Container], ports: tuple[int, ...]) -> frozenset[str]:
    """Names of the containers whose restart loses a cache, empty for all."""
    accelerated = frozenset(c.name for c in containers if _has_accelerator(c))
    return accelerated or frozenset(
        c.name for c in containers if any(port.container_port in ports for port in c.ports or ())
    )


def _has_accelerator(container: Container) -> bool:
    resources = container.resources
    return resources is not None and bool(resources.claims or any("/" in name for name in resources.limits or ()))


@dataclass(frozen=True, slots=True)
class Found:
    """What a pool's pods come to. `matched` pods are selected, `ready` of them are Ready and have an address.
    `endpoints` are of these, and of those that were before.

    `endpoints` is the same object as long as nothing changes, ordered by pod and rank.
    """

    endpoints: tuple[EndpointSpec, ...]
    matched: int
    ready: int


@dataclass(slots=True)
class _Row:
    pod: ServingPod
    specs: tuple[EndpointSpec, ...]
    ready: bool
    was_ready: str


class EndpointTable:
    """The pods of one pool by `namespace/name`, and their endpoints. `ranked`: see `endpoints_of`."""

    def __init__(self, ports: tuple[int, ...], *, ranked: bool = True) -> None:
        self._ports = ports
        self._ranked = ranked
        self._rows: dict[str, _Row] = {}
        self._endpoints: tuple[EndpointSpec, ...] = ()
        self._changed = False
        self._ready = 0
        self._said: set[tuple[str, ...]] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def put(self, key: str, pod: ServingPod) -> bool:
        """`pod` is there, or has changed. Returns whether `found` may answer otherwise than before."""
        row = self._rows.get(key)
        if row is not None and row.pod is pod:
            return False
        ready = is_ready(pod) and bool(pod_ip(pod))
        was_ready = incarnation(pod, self._ports) if ready else row.was_ready if row is not None else ""
        specs = endpoints_of(pod, self._ports, was_ready, ranked=self._ranked)
        if row is not None and row.ready == ready and row.specs == specs:
            row.pod, row.was_ready = pod, was_ready
            return False
        if ready:
            self._report(key, pod)
        elif is_ready(pod) and _told_ip(pod):
            self._report_address(key, _told_ip(pod))
        self._ready += ready - (row is not None and row.ready)
        self._rows[key] = _Row(pod, specs, ready, was_ready)
        self._changed = True
        return True

    def drop(self, key: str) -> bool:
        """The pod is no longer there, or no longer selected. Returns whether it was there."""
        row = self._rows.pop(key, None)
        if row is None:
            return False
        self._ready -= row.ready
        self._changed = True
        return True

    def found(self) -> Found:
        """What the pods come to now."""
        if self._changed:
            self._changed = False
            endpoints = tuple(spec for key in sorted(self._rows) for spec in self._rows[key].specs)
            if endpoints != self._endpoints:
                self._endpoints = endpoints
        return Found(self._endpoints, len(self._rows), self._ready)

    def _report(self, key: str, pod: ServingPod) -> None:
        _, bad = active_ports(pod, self._ports)
        if bad and bad not in self._said and len(self._said) < _SAID:
            self._said.add(bad)
            shown = ", ".join(repr(entry[:40]) for entry in bad[:8])
            log.warning(
                "pod %s: annotation %s names %s, no target port of the pool (%s); ignored",
                key, ACTIVE_PORTS[0], shown, ", ".join(map(str, self._ports)),
            )  # fmt: skip

    def _report_address(self, key: str, ip: str) -> None:
        if (ip,) not in self._said and len(self._said) < _SAID:
            self._said.add((ip,))
            log.warning("pod %s: podIP %r is no IPv4 or IPv6 address; it is left out", key, ip[:SHOWN_CHARACTERS])


def replaced(old: Mapping[str, ServingPod], new: Mapping[str, ServingPod]) -> list[str]:
    """The keys that are not the same pod at the same version in both."""
    keys = [key for key, pod in new.items() if not _same(old.get(key), pod)]
    if len(old) + len(keys) != len(new) or keys:
        keys.extend(key for key in old if key not in new)
    return keys


def _same(old: ServingPod | None, new: ServingPod) -> bool:
    # Equal resource versions of one UID are equal objects; a list decodes all of them anew.
    return old is not None and (
        old is new
        or (old.metadata.uid, old.metadata.resource_version) == (new.metadata.uid, new.metadata.resource_version)
    )
