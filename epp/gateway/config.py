# SPDX-License-Identifier: Apache-2.0
"""The configuration of `epp gateway`: a JSON file, strictly read.

    {"listeners": {"80": {"models": {"llama3-1b": {"target": "backend", "name": "default/llama3-1b", "counts": true,
                                                   "costs": [{"metadataKey": "llm_total_token", "type": "TotalToken"}],
                                                   "includeUsage": "hidden"},
                                     "qwen": {"target": "pool", "name": "kserve-test/qwen", "counts": false}}}}}

A listener is named by what Envoy says in the header `x-epp-listener` of its ext_proc stream; one that says nothing, or
a name that is not here, gets the models of all listeners, the first of equal names. `others` is for the models that no
entry names: routes that match by regular expression, or by other headers alone. Where there is none, such a request is
not looked at further: Envoy has no route for it and answers 404.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from epp.contract.aigateway import COST_NAMESPACE
from epp.contract.errors import ConfigError
from epp.gateway.names import header_fault
from epp.gateway.wording import faults
from epp.plugins.costs.rules import CostType

BODY_LIMIT_BYTES = 64 * 1024 * 1024
MOST_BODY_BYTES = 1 << 30
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")

IncludeUsage = Literal["off", "on", "hidden"]


class CostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One number that an answer's metadata gets: `cel` is the expression of type CEL."""

    metadata_key: Annotated[str, msgspec.Meta(min_length=1)]
    type: CostType
    cel: str = ""


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """One model.

    * target, name: where its requests go, a pool (through an endpoint picker) or a backend, `namespace/name`; of
      several, the backend is named. `name` is what CEL expressions see as `backend`
    * counts: whether this process reads the answers. For pools the endpoint picker does
    * costs: what is written of an answer, under the namespace of the whole configuration
    * include_usage: whether streamed answers are asked for their usage where the client did not: off; on; hidden, on
      and kept from the client
    """

    target: Literal["pool", "backend"]
    name: str = ""
    counts: bool = False
    costs: tuple[CostConfig, ...] = ()
    include_usage: IncludeUsage = "off"


class ListenerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """What one Envoy listener serves. `models` by exact name; `others`: any other model's entry."""

    models: dict[str, ModelConfig] = {}
    others: ModelConfig | None = None


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """All of it.

    * tenant_header: tells the tenants of the metrics apart; "" for none
    * body_limit_bytes: of a request's body, also after decompression
    * metadata_namespace: of the dynamic metadata with costs
    * path_prefixes: what may stand before the known paths; "" is nothing
    """

    listeners: dict[str, ListenerConfig]
    tenant_header: str = "x-user-id"
    body_limit_bytes: Annotated[int, msgspec.Meta(ge=1024, le=MOST_BODY_BYTES)] = BODY_LIMIT_BYTES
    metadata_namespace: Annotated[str, msgspec.Meta(min_length=1)] = COST_NAMESPACE
    path_prefixes: tuple[str, ...] = ("",)


_decoder = msgspec.json.Decoder(GatewayConfig)


def read_config(text: str | bytes, source: str) -> GatewayConfig:
    """The configuration in `text`, a JSON document. Raises `ConfigError`, one line."""
    try:
        config = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"gateway configuration {source}: {_told(text, error)}") from None
    for fault in _faults(config):
        raise ConfigError(f"gateway configuration {source}: {fault}")
    return config


def _told(text: str | bytes, error: Exception) -> str:
    """The first fault with its place, or what the decoder says where the document is no JSON; one line."""
    found: list[str] = []
    if isinstance(error, msgspec.ValidationError):
        found = list(faults(msgspec.json.decode(text), GatewayConfig))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return " ".join(f"{found[0] if found else error}{more}".split())


def write_config(config: GatewayConfig) -> bytes:
    """The document that `read_config` reads, indented."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def _faults(config: GatewayConfig) -> list[str]:
    found = []
    if config.tenant_header and not _HEADER_NAME.fullmatch(config.tenant_header):
        found.append(
            f"tenantHeader {config.tenant_header!r} is no header name in lower case; for none give an empty one"
        )
    found += [
        f"pathPrefixes: {prefix!r} is no path; allowed: empty, or like /openai, without a slash at the end"
        for prefix in config.path_prefixes
        if not _PREFIX.fullmatch(prefix)
    ]
    if not config.path_prefixes:
        found.append('pathPrefixes is empty, so no path would be known; give [""]')
    for listener, served in config.listeners.items():
        for model in served.models:
            fault = header_fault(model)
            if fault is not None:
                found.append(f"listeners.{listener}.models: the name {model[:80]!r} {fault}")
    return found
