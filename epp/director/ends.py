# SPDX-License-Identifier: Apache-2.0
"""What plugins tell Envoy's filters at the end of an answer. What metadata cannot carry never leaves here: Envoy would
not take the reply, and the client would lose the end of its answer for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from epp.contract.errors import PluginError
from epp.contract.plugins import ResponseEndHook
from epp.contract.requests import InferenceRequest, ResponseEnd
from epp.scheduling.guard import Guarded


def told_metadata(
    hooks: Iterable[Guarded[ResponseEndHook]], request: InferenceRequest, end: ResponseEnd
) -> Mapping[str, Mapping[str, Any]]:
    """What `hooks` tell of the answer that ended, merged by namespace; of two equal keys the later hook's counts."""
    told: dict[str, dict[str, Any]] = {}
    for hook in hooks:
        if hook.failing and hook.benched:
            continue
        try:
            _merge(told, hook.plugin.on_response_end(request, end))
        except Exception as error:
            hook.failed(error)
        else:
            hook.succeeded()
    return told


def _merge(told: dict[str, dict[str, Any]], metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what can be carried. Raises `PluginError` when something could not."""
    wrong = None
    for namespace, values in metadata.items():
        for key, value in values.items():
            if _is_text(namespace) and _is_text(key) and _is_carried(value):
                told.setdefault(namespace, {})[key] = value
            else:
                wrong = f"{namespace!r}, {key!r}: {value!r:.80}"
    if wrong is not None:
        raise PluginError(f"{wrong} is left out of the metadata; values are finite numbers, texts and booleans")


def _is_carried(value: object) -> bool:
    try:
        return math.isfinite(value) if isinstance(value, int | float) else _is_text(value)
    except OverflowError:
        return False


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
