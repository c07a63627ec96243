# SPDX-License-Identifier: Apache-2.0
"""A gateway for models as its manifests describe it, resolved: every reference is followed, every default is filled in.

    listener -> route -> rule (a model's name) -> weighted targets: a pool (through an endpoint picker) or a backend
                      -> costs, limits

Names are `namespace/name`, as in the manifests. What a manifest asks for and this cannot do is in `unsupported`, one
line each; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epp.manifests.limits import LimitPolicy


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Something asked for that is not done. `what` names kind, object and field; `why` says what happens instead."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Listener:
    """One HTTP listener of a Gateway. `port` is the manifest's; `hostname` "" takes every host.

    A ClientTrafficPolicy can turn off headers of its answers: `envoy_headers` those that begin with `x-envoy-` (also
    `x-envoy-ratelimited`), `rate_limit_headers` those that begin with `x-ratelimit-`.
    """

    gateway: str
    name: str
    port: int
    hostname: str = ""
    envoy_headers: bool = True
    rate_limit_headers: bool = True

    @property
    def domain(self) -> str:
        """The domain of its rate limits, as Envoy Gateway names it: `namespace/gateway/listener`."""
        return f"{self.gateway}/{self.name}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's text, which no representation shows."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key for an upstream: header `header` gets `prefix` followed by the key."""

    key: Secret
    header: str = "authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to a backend, verified. `hostname`: server name sent, and asked of the certificate; `ca_pem` "" takes the
    system's roots."""

    hostname: str
    ca_pem: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """One of a route's `llmRequestCosts`: metadata key, type (`InputToken`, ...), and the expression of type CEL."""

    key: str
    type: str
    cel: str = ""


@dataclass(frozen=True, slots=True)
class PickerText:
    """The text of an EndpointPickerConfig. `file` "" where it is not known; `line`, from 1: where the text begins."""

    text: str
    file: str = ""
    line: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """An InferencePool, served through an endpoint picker of its own.

    * models: names its pods serve, the first one preferred; port: of the pods
    * endpoints: `host:port` of real model servers; empty: simulate `replicas` pods
    * picker_config: EndpointPickerConfig, None for the default one
    * key: for its pods, where they ask for one
    """

    name: str
    models: tuple[str, ...] = ()
    port: int = 8000
    replicas: int = 1
    endpoints: tuple[str, ...] = ()
    picker_config: PickerText | None = None
    key: ApiKey | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """An AIServiceBackend, or a Service a route names directly: reached without an endpoint picker.

    * endpoints: `host:port`, all alike; empty: simulate `replicas` pods that serve `models`
    * schema: of its API, as AIServiceBackend names it; prefix: what its paths begin with in the place of `/v1`
    """

    name: str
    models: tuple[str, ...] = ()
    replicas: int = 1
    endpoints: tuple[str, ...] = ()
    schema: str = "OpenAI"
    prefix: str = ""
    tls: Tls | None = None
    key: ApiKey | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One of a rule's backendRefs: `name` of a `Pool` or `Backend` (`pool` says which), and its share."""

    name: str
    pool: bool
    weight: int = 1


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header a rule asks for; `regex` or exact."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests whose headers are all as one of `matches` says (empty: every request) go to `targets`.

    The model is matched as header `x-ai-eg-model`. `timeout_s` None: the gateway's default, 60 s as in Envoy AI
    Gateway; 0: none. `name` is unique: `namespace/route/rule/index`.
    """

    name: str
    matches: tuple[tuple[HeaderMatch, ...], ...]
    targets: tuple[Target, ...]
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """An AIGatewayRoute: on which gateways (`namespace/name`, with a section `namespace/name/listener`), its rules in
    order, and what its answers cost."""

    name: str
    gateways: tuple[str, ...]
    rules: tuple[Rule, ...]
    costs: tuple[Cost, ...] = ()

    def is_on(self, listener: Listener) -> bool:
        """It takes requests of this listener, by its gateway or by its section."""
        return listener.gateway in self.gateways or listener.domain in self.gateways


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything. `files`: what was read, for messages; `warnings`: one line each, about what is probably not meant."""

    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...] = ()
    backends: tuple[Backend, ...] = ()
    limits: tuple[LimitPolicy, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    files: Sequence[Path] = ()
    warnings: tuple[str, ...] = ()
