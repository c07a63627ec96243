# SPDX-License-Identifier: Apache-2.0
"""Which pool a gRPC stream is for. Envoy's ext_proc protocol does not say, so it is told by how the call was made.

In this order; the first that says anything decides:

1. The initial metadata `x-epp-pool: [namespace/]name` (in Envoy `grpc_service.initial_metadata`). It exists for
   nothing else, so a name that is not served is a mistake and never answered by another pool.
2. The port the call came on, where one pool alone has it: an InferencePool's `endpointPickerRef.port` that is not
   --grpc-port. A port cannot be got wrong, and is all that is left where a gateway sets neither of the others.
3. The `:authority`, compared with the Service in `endpointPickerRef`: what gateways fill in by themselves, so that
   nothing needs to be configured. What it may look like is in `authority`. Its port decides between pools of one
   Service. A Service's name without a namespace is understood if one pool's Service alone is called so.
4. Where only one pool is served, that one, if the authority names no Service at all (an address, nothing) or no other
   pool can come, as one was asked for by name. What names the Service of another pool, which is not there yet or no
   more, must not reach this one.

Nothing of a request is looked at: which pool serves a request is the gateway's decision, and a client must not be able
to make it.

`Ways` is worked out once whenever pools come, change or go. A stream costs one look into a dictionary of what was said
before; what is new there is worked out and remembered, up to `MOST_REMEMBERED` texts, as peers choose them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from epp.service.pools.authority import Said, read_authority
from epp.service.pools.identity import PoolId

T = TypeVar("T")

METADATA = "x-epp-pool"
MOST_REMEMBERED = 4096
_SHOWN_CHARACTERS = 200


class Called(Protocol):
    """What the transport knows of a call; `epp.transport.call.Metadata`."""

    @property
    def authority(self) -> str:
        """The `:authority`, "" where the transport cannot tell."""
        ...

    @property
    def values(self) -> Mapping[str, str]:
        """Initial metadata by lower-case name."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """How a pool wants to be called: the Service of its `endpointPickerRef` ("" when it names none) and that
    Service's port, 0 when it names none. The Service is in the pool's namespace."""

    pool: PoolId
    service: str = ""
    port: int = 0


class Ways:
    """What leads to which pool.

    * default_namespace: where a pool is that `x-epp-pool` names without one
    * ports: those that are listened on for pools
    * alone: no other pool can come
    """

    def __init__(
        self, claims: Iterable[Claim], default_namespace: str, ports: Iterable[int] = (), alone: bool = False
    ) -> None:
        self._alone = alone
        self._claims = {claim.pool: claim for claim in claims}
        self._default_namespace = default_namespace
        listened = set(ports)
        own = [claim for claim in self._claims.values() if claim.port in listened]
        self._by_port = _grouped((claim.port, claim.pool) for claim in own)
        self._by_service = _grouped(
            (key, claim.pool)
            for claim in self._claims.values()
            if claim.service
            for key in (claim.service, (claim.service, claim.pool.namespace))
        )
        self._by_name = _grouped((pool.name, pool) for pool in self._claims)

    def choose(self, said_pool: str, port: int, authority: str) -> PoolId | None:
        """The pool of a call on `port`; None when nothing tells."""
        if said_pool:
            return self._named(said_pool)
        on_port = self._by_port.get(port, ())
        if len(on_port) == 1:
            return on_port[0]
        said = read_authority(authority)
        found = None if said is None else self._by_authority(said, on_port)
        if found is None and len(self._claims) == 1:
            [only] = self._claims.values()
            if said is None or self._alone or not only.service:
                return only.pool
        return found

    def doubts(self) -> list[str]:
        """What cannot be told apart, one line each."""
        alike = [
            (key[0], together)
            for key, pools in self._by_service.items()
            if isinstance(key, tuple) and len(pools) > 1
            for together in _grouped((self._claims[pool].port, pool) for pool in pools).values()
            if len(together) > 1
        ]
        return [
            f"pools {', '.join(map(str, together))} have the same endpointPickerRef {service}: streams for them must "
            f"say which with initial metadata {METADATA}, or the pools need Services of their own"
            for service, together in alike
        ]

    def _named(self, text: str) -> PoolId | None:
        namespace, slash, name = text.strip().rpartition("/")
        if slash:
            pool = PoolId(namespace, name)
            return pool if pool in self._claims else None
        pools = self._by_name.get(name, ())
        home = PoolId(self._default_namespace, name)
        return home if home in pools else pools[0] if len(pools) == 1 else None

    def _by_authority(self, said: Said, on_port: tuple[PoolId, ...]) -> PoolId | None:
        if said.is_pool:
            pool = PoolId(said.namespace, said.name)
            return pool if pool in self._claims else None
        pools = self._by_service.get((said.name, said.namespace) if said.namespace else said.name, ())
        if len(pools) > 1 and said.port:
            pools = tuple([pool for pool in pools if self._claims[pool].port == said.port])
        if len(pools) > 1 and on_port:
            pools = tuple([pool for pool in pools if pool in on_port])
        return pools[0] if len(pools) == 1 else None


class Chooser(Generic[T]):
    """Finds what serves a stream. `use` replaces what is known; streams that are open keep what they were given."""

    def __init__(self) -> None:
        self._ways = Ways((), "")
        self._served: Mapping[PoolId, T] = {}
        self._known: dict[tuple[str, int, str], T | None] = {}

    def use(self, ways: Ways, served: Mapping[PoolId, T]) -> None:
        """From now on `ways` lead to `served`."""
        self._ways, self._served, self._known = ways, served, {}

    def on_port(self, port: int) -> Callable[[Called], T | None]:
        """What finds it for calls that came on `port`; None when nothing tells which pool they are for."""

        def choose(called: Called) -> T | None:
            key = (called.values.get(METADATA, ""), port, called.authority)
            try:
                return self._known[key]
            except KeyError:
                return self._learn(key)

        return choose

    def unknown(self, called: Called, port: int) -> str:
        """Why no pool was found for a call, and what would mend it, in one line."""
        said_pool = called.values.get(METADATA, "")
        if said_pool:
            return f"no pool {_shown(said_pool)} is served here, which {METADATA} asks for"
        authority = _shown(called.authority)
        where = f" on port {port}" if port else ""
        return (
            f"no pool is known by the authority {authority}{where}; set grpc_service.envoy_grpc.authority to "
            f"the Service of the pool's endpointPickerRef, or send initial metadata {METADATA}: namespace/name"
        )

    def _learn(self, key: tuple[str, int, str]) -> T | None:
        pool = self._ways.choose(*key)
        found = None if pool is None else self._served.get(pool)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = found
        return found


def _grouped(pairs: Iterable[tuple[object, PoolId]]) -> dict[object, tuple[PoolId, ...]]:
    groups: dict[object, tuple[PoolId, ...]] = {}
    for key, pool in pairs:
        groups[key] = (*groups.get(key, ()), pool)
    return groups


def _shown(text: str) -> str:
    return repr(text[:_SHOWN_CHARACTERS])
