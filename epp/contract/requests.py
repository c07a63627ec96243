# SPDX-License-Identifier: Apache-2.0
"""One inference request as plugins see it, and how it ended.

The request's bytes are parsed once; `prompts` is the byte stream that prefix hashing works on: little-endian u32
"tokens", either real token ids or four bytes of text each (zero padded), one stream per prompt.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

T = TypeVar("T")


class DataKey(msgspec.Struct, Generic[T], frozen=True):
    """Names what a producer publishes on a request and gives it a type.

    `producer` is the instance name of the producer, so that two instances do not overwrite each other.
    """

    name: str
    producer: str = ""


class InferenceRequest(msgspec.Struct, eq=False):
    """What is known of a request before an endpoint is chosen. Plugins read it and publish to `data`.

    * headers: lower-case names; the last of several equal names wins
    * path: without query; model: as the client wrote it, "" when the body is opaque
    * target_model: the model the endpoint is asked for (after rewriting)
    * prompts: u32 streams (see the module); empty when the body is opaque
    * body_bytes: size of the original body
    """

    request_id: str
    headers: Mapping[str, str]
    path: str = "/v1/completions"
    model: str = ""
    target_model: str = ""
    stream: bool = False
    prompts: tuple[bytes, ...] = ()
    cache_salt: str = ""
    max_output_tokens: int | None = None
    priority: int = 0
    fairness_id: str = "default-flow"
    body_bytes: int = 0
    received_s: float = 0.0
    data: dict[DataKey[Any], Any] = msgspec.field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; an estimate (4 bytes each) unless the client sent token ids."""
        return sum(map(len, self.prompts)) // 4

    def publish(self, key: DataKey[T], value: T) -> None:
        """Leave `value` for the plugins that run later in this request."""
        self.data[key] = value

    def get(self, key: DataKey[T]) -> T | None:
        """What a producer published under `key`, or None."""
        return cast("T | None", self.data.get(key))


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the endpoint counted them; None where it did not say.

    * cached_tokens: of the prompt, read from a cache; cache_creation_tokens: of the prompt, written to one (Anthropic)
    * reasoning_tokens: of the completion
    * prompt_tokens_apart: of the prompt, but not in prompt_tokens, as Anthropic counts: cached and written to a cache
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_tokens_apart: int | None = None


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """How an endpoint's answer begins.

    * status: None when it is none of three digits
    * headers: lower-case names; the last of several equal names wins
    * metadata: Envoy's filter metadata at that moment, by namespace, as plain values; only what Envoy is configured to
      send (`metadata_options.forwarding_namespaces`)
    """

    status: int | None
    headers: Mapping[str, str]
    metadata: Mapping[str, Mapping[str, Any]]


class ResponseEnd(msgspec.Struct, frozen=True, gc=False):
    """What is known of an answer when its last piece passes by.

    * status: None when it is none of three digits; usage: None when the answer said nothing readable of its tokens
    """

    status: int | None
    usage: Usage | None


class Cause(enum.Enum):
    """Why a request ended."""

    COMPLETE = "natural"
    CLIENT_GONE = "client-disconnect"
    EVICTED = "evicted"
    ERROR = "error"
    UNKNOWN = "unknown"
    """Nobody saw the end: the response was not watched, and no access log told."""


class Completion(msgspec.Struct, frozen=True, gc=False):
    """How a routed request ended. `reached_endpoint` is true once response headers came back."""

    cause: Cause
    reached_endpoint: bool
    status: int | None
    usage: Usage | None
    duration_s: float
    first_byte_s: float | None
    response_bytes: int
