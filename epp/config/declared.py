# SPDX-License-Identifier: Apache-2.0
"""Plugins that only declare something: metrics sources and extractors, the tokenizer, parsers.

They never act on a request themselves; the service reads their parameters. `role` says where a reference to one may
stand in the document.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from epp.contract.plugins import plugin
from epp.contract.units import Duration, parse_duration_s


class Role(enum.Enum):
    """Where a declared plugin may be referenced; the value is how messages call it."""

    SOURCE = "a data source"
    EXTRACTOR = "an extractor"
    PARSER = "a parser"
    TOKENIZER = "a token producer"


def role_of(target: object) -> Role | None:
    """The role of a plugin's class, or None."""
    role = getattr(target, "role", None)
    return role if isinstance(role, Role) else None


@plugin("metrics-data-source")
class MetricsDataSource:
    """Reads the metrics page of every endpoint."""

    role: ClassVar[Role] = Role.SOURCE

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* scheme, path, port: of the page; without a port, the endpoint's own
        * interval: time between two reads of one endpoint, as a Go duration; empty means the service's own
        * idleInterval: the same while no requests are routed and the endpoint has no work; empty: the service's own
        * insecureSkipVerify: accept any certificate of the endpoint
        * caCertPath, clientCertPath, clientKeyPath: PEM files; the client's two go together
        """

        scheme: Literal["http", "https"] = "http"
        path: Annotated[str, Meta(pattern="^/")] = "/metrics"
        port: Annotated[int, Meta(ge=1, le=65535)] | None = None
        interval: Duration | None = None
        idleInterval: Duration | None = None
        insecureSkipVerify: bool = True
        caCertPath: str = ""
        clientCertPath: str = ""
        clientKeyPath: str = ""

        def __post_init__(self) -> None:
            if bool(self.clientCertPath) != bool(self.clientKeyPath):
                raise ValueError("clientCertPath and clientKeyPath go together; give both or neither")

        @property
        def interval_s(self) -> float | None:
            """Seconds between two reads, None when not given."""
            return parse_duration_s(self.interval) if self.interval else None

        @property
        def idle_interval_s(self) -> float | None:
            """Seconds between two reads when idle, None when not given."""
            return parse_duration_s(self.idleInterval) if self.idleInterval else None


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A family, and the labels that a series of it must have."""

    family: str
    labels: tuple[tuple[str, str], ...] = ()


def parse_metric_spec(text: str) -> MetricSpec:
    """`name` or `name{label=value,...}`, values with or without quotes. Raises ValueError."""
    family, brace, rest = text.strip().partition("{")
    if not family.strip() or (brace and not rest.endswith("}")):
        raise ValueError(text)
    labels = []
    for part in rest.removesuffix("}").split(",") if rest.removesuffix("}").strip() else ():
        label, equals, value = part.partition("=")
        if not equals or not label.strip():
            raise ValueError(text)
        labels.append((label.strip(), value.strip().strip('"')))
    return MetricSpec(family.strip(), tuple(labels))


def _check_metric_spec(text: str) -> None:
    if text:
        parse_metric_spec(text)


SpecText = Annotated[
    str, Meta(extra={"check": _check_metric_spec, "allowed": 'a metric such as "name" or "name{label=value}"'})
]


@dataclass(frozen=True, slots=True)
class CustomMetric:
    """A family that becomes an attribute of the endpoint."""

    attributeKey: Annotated[str, Meta(min_length=1)]
    metricSpec: SpecText


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Which families one engine uses; an empty one keeps the built-in engine's of that name."""

    name: Annotated[str, Meta(min_length=1)]
    queuedRequestsSpec: SpecText = ""
    runningRequestsSpec: SpecText = ""
    kvUsageSpec: SpecText = ""
    loraSpec: SpecText = ""
    cacheInfoSpec: SpecText = ""
    cacheBlockSizeLabelName: str = ""
    cacheNumBlocksLabelName: str = ""
    cacheBlockSizeSpec: SpecText = ""
    cacheNumBlocksSpec: SpecText = ""
    customMetrics: tuple[CustomMetric, ...] = ()

    def __post_init__(self) -> None:
        if self.name == "default":
            raise ValueError("the engine name 'default' is reserved; use the engine's own name")


@plugin("core-metrics-extractor", aliases=("model-server-protocol-metrics",))
class CoreMetricsExtractor:
    """Finds queue, running requests, KV cache use and cache layout on a metrics page, by engine."""

    role: ClassVar[Role] = Role.EXTRACTOR

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* engineLabelKey: the endpoint's label that names its engine
        * defaultEngine: the engine of endpoints without that label; empty to recognise it from the metrics page
        * engineConfigs: more engines, or other families for a built-in one
        """

        engineLabelKey: str = "llm-d.ai/engine-type"
        defaultEngine: str = ""
        engineConfigs: tuple[EngineConfig, ...] = ()

        def __post_init__(self) -> None:
            names = [engine.name for engine in self.engineConfigs]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"engineConfigs has {', '.join(twice)} more than once; give each engine once")


@plugin("token-producer", aliases=("tokenizer",))
class TokenProducer:
    """Turns prompts into tokens: four bytes each, unless the client sent token ids."""

    role: ClassVar[Role] = Role.TOKENIZER

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* estimate: the back-end that needs no tokenizer; its settings for images, video and audio are accepted
        * modelName, vllm, udsTokenizerConfig: back-ends with a real tokenizer; refused
        """

        estimate: dict[str, Any] | None = None
        modelName: str = ""
        vllm: dict[str, Any] | None = None
        udsTokenizerConfig: dict[str, Any] | None = None

        def __post_init__(self) -> None:
            given = [name for name in ("modelName", "vllm", "udsTokenizerConfig") if getattr(self, name)]
            if given:
                names = ", ".join(given)
                raise ValueError(
                    f"{names} asks for a real tokenizer; allowed: the estimate back-end, so remove {names}"
                )


@plugin("openai-parser", any_parameters=True)
class OpenAIParser:
    """Reads requests and answers of OpenAI's API."""

    role: ClassVar[Role] = Role.PARSER


@plugin("anthropic-parser", any_parameters=True)
class AnthropicParser:
    """Reads requests of Anthropic's messages API."""

    role: ClassVar[Role] = Role.PARSER


@plugin("passthrough-parser", any_parameters=True)
class PassthroughParser:
    """Leaves every body unread."""

    role: ClassVar[Role] = Role.PARSER
