# SPDX-License-Identifier: Apache-2.0
"""From a topology to what runs: which processes, at which addresses, with which configurations. Nothing is started.

Simulated pods of the k-th pool or backend are on 127.0.k.1, 127.0.k.2, ... with one port, as pods of a cluster have
distinct addresses and one port. Everything else is on 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from epp.contract.errors import StartError
from epp.gateway.config import IncludeUsage
from epp.local.chain.addresses import Lookup, look_up, resolved
from epp.local.chain.pickerconfig import PickerConfig, costs_of, parameters, picker_config
from epp.local.gateway.places import Address, Places, PoolPlace
from epp.local.gateway.places import address as parse_address
from epp.local.ports import HOST, Ports
from epp.manifests.topology import Backend, Pool, Topology, Unsupported

USUAL_REPLICAS = 8
"""Most simulated pods of one pool or backend, unless --pods says otherwise: each is a process of some 45 MB."""
_MOST_GROUPS = 254


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says about the plan. `port` 0: free ports for all parts. `pods` None: as the manifests."""

    port: int = 8080
    pods: int | None = None
    include_usage: IncludeUsage = "hidden"
    speed: float = 4.0
    plugin_dirs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class SimPod:
    """One simulated pod. `name` is what the picker calls it, without its namespace."""

    name: str
    place: Address
    models: tuple[str, ...]
    seed: int
    speed: float


@dataclass(frozen=True, slots=True)
class Server:
    """One model server that a picker chooses among, as it is told of it."""

    name: str
    place: Address


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool with its picker; `pods` is empty where the servers are real. `health`, `metrics` are ports."""

    pool: Pool
    servers: tuple[Server, ...]
    pods: tuple[SimPod, ...]
    picker: Address
    health: int
    metrics: int
    config: PickerConfig


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """A plain backend; `pods` is empty where its endpoints are real."""

    backend: Backend
    places: tuple[Address, ...]
    pods: tuple[SimPod, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that runs. `topology` is the manifests', with what simulated servers cannot do taken out and told in
    `unsupported`. `gateway_page` and `limits_page` are ports of metrics pages."""

    topology: Topology
    places: Places
    pools: tuple[PoolPlan, ...]
    backends: tuple[BackendPlan, ...]
    gateway_page: int
    limits_page: int
    unsupported: tuple[Unsupported, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def url(self) -> str:
        """The first listener, for clients."""
        return f"http://localhost:{self.places.listeners[min(self.places.listeners)].port}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is probably not meant: in the manifests, and in the configurations of pickers."""
        checked = [pool.config.checked for pool in self.pools]
        return (*self.topology.warnings, *(f"{one.source}: {text}" for one in checked for text in one.warnings))

    @property
    def all_pods(self) -> Iterator[SimPod]:
        """All simulated pods."""
        for pool in self.pools:
            yield from pool.pods
        for backend in self.backends:
            yield from backend.pods


def make_plan(topology: Topology, wishes: Wishes, ports: Ports, lookup: Lookup = look_up) -> Plan:
    """The plan. Raises `StartError`: a port is taken, a name has no address; `ConfigErrors`: a picker's configuration
    is wrong."""
    if not topology.listeners or not topology.routes:
        what = "no Gateway with an HTTP listener" if not topology.listeners else "no AIGatewayRoute on a Gateway"
        raise StartError(f"{_files(topology)}: there is {what}, so nothing would be served")
    listeners = _listeners(topology, wishes, ports)
    groups = _Groups(topology, wishes, ports, lookup)
    pools = tuple(groups.pool(pool) for pool in topology.pools)
    backends = tuple(groups.backend(backend) for backend in topology.backends)
    places = Places(
        listeners=listeners,
        admin=_here(ports, 9901),
        gateway=_here(ports, 9004),
        ratelimit=_here(ports, 8081) if topology.limits else None,
        pools={
            plan.pool.name: PoolPlace(plan.picker, tuple(server.place for server in plan.servers)) for plan in pools
        },
        backends={plan.backend.name: plan.places for plan in backends},
    )
    return Plan(
        topology=replace(topology, backends=tuple(plan.backend for plan in backends)),
        places=places,
        pools=pools,
        backends=backends,
        gateway_page=ports.take(9091),
        limits_page=ports.take(6070),
        unsupported=(*topology.unsupported, *groups.told),
        wishes=wishes,
    )


def _files(topology: Topology) -> str:
    return ", ".join(map(str, topology.files)) or "the manifests"


def _listeners(topology: Topology, wishes: Wishes, ports: Ports) -> Mapping[int, Address]:
    """The lowest port of the manifests is served at the wished port, the next one above it at the next."""
    wanted = sorted({listener.port for listener in topology.listeners})
    found = {}
    for number, port in enumerate(wanted):
        found[port] = Address(HOST, ports.promise(wishes.port + number) if wishes.port else ports.take(8080))
    return found


def _here(ports: Ports, preferred: int) -> Address:
    """An address on loopback."""
    return Address(HOST, ports.take(preferred))


class _Groups:
    """Lays out pools and backends, one after the other."""

    def __init__(self, topology: Topology, wishes: Wishes, ports: Ports, lookup: Lookup) -> None:
        self._topology = topology
        self._wishes = wishes
        self._ports = ports
        self._lookup = lookup
        self._groups = 0
        self._pickers = 0
        self.told: list[Unsupported] = []

    def pool(self, pool: Pool) -> PoolPlan:
        """A pool's servers and its picker."""
        stem = _stem(pool.name)
        costs, conflicts = costs_of(self._topology.routes, pool.name)
        self.told += conflicts
        source, given = f"the EndpointPickerConfig of InferencePool {pool.name}", pool.picker_config
        if given is not None and given.file:
            source = f"{source} in {given.file}"
        wishes = self._wishes
        added = parameters(costs, wishes.include_usage, pool.name)
        # Lines before it, so that mistakes have the lines of the file.
        text = "\n" * (given.line - 1) + given.text if given is not None else None
        config = picker_config(text, added, source, wishes.plugin_dirs)
        pods = () if pool.endpoints else self._simulate(f"InferencePool {pool.name}", stem, pool, pool.port)
        if pods:
            servers = [Server(pod.name, pod.place) for pod in pods]
        else:
            places = [resolved(text, self._lookup) for text in pool.endpoints]
            servers = [Server(f"{stem}-{number}", place) for number, place in enumerate(places)]
        # Pickers of one run lie beside each other: 9002, 9012, ...
        shift, self._pickers = 10 * self._pickers, self._pickers + 1
        return PoolPlan(
            pool,
            tuple(servers),
            pods,
            picker=_here(self._ports, 9002 + shift),
            health=self._ports.take(9003 + shift),
            metrics=self._ports.take(9090 + shift),
            config=config,
        )

    def backend(self, backend: Backend) -> BackendPlan:
        """A backend's endpoints. Simulated ones speak plain HTTP under `/v1`."""
        what = f"AIServiceBackend {backend.name}"
        if backend.endpoints:
            return BackendPlan(backend, tuple(_parsed(what, text) for text in backend.endpoints), ())
        pods = self._simulate(what, backend.name.rpartition("/")[2], backend, 8000)
        if backend.tls is not None:
            self._tell(f"{what} TLS", "its simulated pods speak plain HTTP")
        if backend.prefix not in ("", "/v1"):
            self._tell(f"{what} schema.prefix {backend.prefix}", "its simulated pods are asked under /v1")
        plain = replace(backend, tls=None, prefix="")
        return BackendPlan(plain, tuple(pod.place for pod in pods), pods)

    def _simulate(self, what: str, stem: str, group: Pool | Backend, port: int) -> tuple[SimPod, ...]:
        self._groups += 1
        if self._groups > _MOST_GROUPS:
            raise StartError(f"{what}: at most {_MOST_GROUPS} pools and backends can be simulated; use --pool")
        wishes = self._wishes
        count = wishes.pods or min(max(1, group.replicas), USUAL_REPLICAS)
        if wishes.pods is None and count < group.replicas:
            self._tell(f"{what} replicas {group.replicas}", f"{count} pods are simulated; --pods says how many")
        hosts = [f"127.0.{self._groups}.{number}" for number in range(1, count + 1)]
        chosen = self._ports.take(port, hosts)
        models = group.models or (stem,)
        return tuple(
            SimPod(f"{stem}-{number}", Address(host, chosen), models, 1000 * self._groups + number, wishes.speed)
            for number, host in enumerate(hosts)
        )

    def _tell(self, what: str, why: str) -> None:
        self.told.append(Unsupported(what, why))


def _stem(name: str) -> str:
    """What the pods of a pool are called, before their number: those of an LLMInferenceService as KServe does."""
    bare = name.rpartition("/")[2]
    service = bare.removesuffix("-inference-pool")
    return f"{service}-kserve" if service != bare else bare


def _parsed(what: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise StartError(f"{what}: {error}") from None


def endpoints_file(plan: PoolPlan) -> Mapping[str, Sequence[Mapping[str, object]]]:
    """The picker's file of model servers, with the labels that KServe gives its pods."""
    namespace, _, bare = plan.pool.name.rpartition("/")
    service = bare.removesuffix("-inference-pool")
    labels = {
        "app.kubernetes.io/component": "llminferenceservice-workload",
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/part-of": "llminferenceservice",
        "kserve.io/component": "workload",
        "llm-d.ai/role": "both",
    }
    return {
        "endpoints": [
            {
                "name": server.name,
                "namespace": namespace or "default",
                "address": server.place.host,
                "port": server.place.port,
                "labels": labels,
            }
            for server in plan.servers
        ]
    }
