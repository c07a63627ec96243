# SPDX-License-Identifier: Apache-2.0
"""The public face for plugin authors. Everything here is stable; nothing else in the package is.

from epp.api import scorer

@scorer("free-kv")
def free_kv(request, endpoints):
    return 1.0 - endpoints.kv_utilization
"""

from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.endpoints import BoolArray, Clock, Columns, Endpoint, Endpoints, FloatArray, IntArray
from epp.contract.errors import (
    BadRequest,
    ConfigError,
    DiscoveryError,
    EppError,
    PluginError,
    RequestError,
    ResourceExhausted,
    ServiceUnavailable,
)
from epp.contract.lora import LoraState
from epp.contract.metering import Counter, Meter
from epp.contract.plugins import (
    DoneHook,
    EndpointHook,
    Filter,
    Kind,
    Picker,
    PluginContext,
    Producer,
    ProfileHandler,
    Reads,
    ResponseEndHook,
    ResponseHook,
    RoutedHook,
    SaturationDetector,
    Scorer,
    UsageWish,
    UsageWisher,
    filter,  # noqa: A004 - the field's name
    picker,
    plugin,
    scorer,
)
from epp.contract.prefix import PREFIX_MATCH, PrefixMatch
from epp.contract.requests import Cause, Completion, DataKey, InferenceRequest, ResponseEnd, ResponseHead, Usage
from epp.contract.signals import Signal
from epp.contract.units import Duration, parse_duration_s

__all__ = [
    "PREFIX_MATCH",
    "BadRequest",
    "BoolArray",
    "Cause",
    "Clock",
    "Columns",
    "Completion",
    "ConfigError",
    "Counter",
    "DataKey",
    "Decision",
    "Discovery",
    "DiscoveryError",
    "DoneHook",
    "Duration",
    "Endpoint",
    "EndpointHook",
    "EndpointSpec",
    "Endpoints",
    "EppError",
    "Filter",
    "FilterTrace",
    "FloatArray",
    "InferenceRequest",
    "IntArray",
    "Kind",
    "LoraState",
    "Meter",
    "Picker",
    "PluginContext",
    "PluginError",
    "PrefixMatch",
    "Producer",
    "ProfileHandler",
    "ProfileResult",
    "Reads",
    "RequestError",
    "ResourceExhausted",
    "ResponseEnd",
    "ResponseEndHook",
    "ResponseHead",
    "ResponseHook",
    "RoutedHook",
    "SaturationDetector",
    "ScoreTrace",
    "Scorer",
    "ServiceUnavailable",
    "Signal",
    "Usage",
    "UsageWish",
    "UsageWisher",
    "filter",
    "parse_duration_s",
    "picker",
    "plugin",
    "scorer",
]
