# SPDX-License-Identifier: Apache-2.0
"""What a pool is, whichever kind of object or flags describe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from epp.contract.errors import DiscoveryError, EppError, StartError
from epp.discovery.kubernetes.objects import PoolV1, PoolV1Alpha2
from epp.kube.resource import GIE_GROUP, GIE_X_GROUP, POOLS, POOLS_X, Resource
from epp.kube.selector import Selector, match_labels, parse_selector

MAX_PORTS = 8


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool. `group` is "" and `uid` is "" when flags describe it instead of an object.

    * ports: 1 to 8 of them, different; an endpoint's rank is a place in it
    * app_protocol: `http` or `kubernetes.io/h2c`, as the object says
    * picker_name, picker_port: the service in front of this picker, "" and None when the pool names none
    """

    group: str
    namespace: str
    name: str
    selector: Selector
    ports: tuple[int, ...]
    app_protocol: str = "http"
    picker_name: str = ""
    picker_port: int | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    uid: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def ranked(self) -> bool:
        """Whether its endpoints' names have a rank, `<pod>-rank-0`; those of the older group bear the pod's name."""
        return self.group != GIE_X_GROUP

    def __str__(self) -> str:
        """As messages name it."""
        return f"{'inferencepool' if self.group else 'pool'} {self.key}"


def pool_of(obj: PoolV1 | PoolV1Alpha2) -> PoolSpec:
    """The pool that `obj` describes. Raises `DiscoveryError` with one line."""
    labels: Mapping[str, str] | None
    if isinstance(obj, PoolV1Alpha2):
        group, labels, numbers, protocol = GIE_X_GROUP, obj.spec.selector, [obj.spec.target_port_number], "http"
        old = obj.spec.extension_ref
        picker = (old.name, old.port_number) if old else ("", None)
    else:
        group, protocol = GIE_GROUP, obj.spec.app_protocol
        labels = obj.spec.selector.match_labels if obj.spec.selector else None
        numbers = [port.number for port in obj.spec.target_ports or ()]
        new = obj.spec.endpoint_picker_ref
        picker = (new.name, new.port.number if new.port else None) if new else ("", None)
    meta = obj.metadata
    try:
        selector, ports = match_labels(labels or {}), _checked_ports(numbers)
    except EppError as error:
        raise DiscoveryError(f"inferencepool {meta.namespace}/{meta.name}: {error}; mend or delete it") from None
    annotations = MappingProxyType(meta.annotations or {})
    return PoolSpec(group, meta.namespace, meta.name, selector, ports, protocol, *picker, annotations, meta.uid)


def selector_pool(namespace: str, name: str, selector: str, ports: Sequence[int]) -> PoolSpec:
    """The pool of `--endpoint-selector` and `--endpoint-target-ports`; no object describes it.

    `name` is the picker's own Deployment. Raises `EppError` with one line.
    """
    return PoolSpec("", namespace, name, parse_selector(selector), _checked_ports(ports))


def pool_resource(group: str) -> Resource:
    """The pools' kind in `group`, the value of `--pool-group`. Raises `StartError`."""
    for resource in (POOLS, POOLS_X):
        if resource.group == group:
            return resource
    raise StartError(f"--pool-group {group!r} has no InferencePool; it must be {POOLS.group} or {POOLS_X.group}")


def _checked_ports(numbers: Sequence[int]) -> tuple[int, ...]:
    ports = tuple(dict.fromkeys(numbers))
    if not 1 <= len(ports) <= MAX_PORTS:
        raise DiscoveryError(f"{len(ports)} target ports; there must be 1 to {MAX_PORTS}")
    for port in ports:
        if not 1 <= port <= 65535:
            raise DiscoveryError(f"target port {port} must be from 1 to 65535")
    return ports
