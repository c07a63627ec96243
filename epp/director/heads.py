# SPDX-License-Identifier: Apache-2.0
"""What plugins add to the headers of a response. Envoy refuses a whole answer for one bad header, and the client would
get 500 for it, so what is no header never leaves here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from epp.contract.decision import Decision
from epp.contract.errors import PluginError
from epp.contract.plugins import ResponseHook
from epp.contract.requests import InferenceRequest, ResponseHead
from epp.scheduling.guard import Guarded

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


def added_headers(
    hooks: Iterable[Guarded[ResponseHook]], request: InferenceRequest, decision: Decision, head: ResponseHead
) -> list[tuple[str, bytes]]:
    """What `hooks` set on the response that begins with `head`, in their order; names in lower case."""
    added: list[tuple[str, bytes]] = []
    for hook in hooks:
        if hook.failing and hook.benched:
            continue
        try:
            headers = hook.plugin.on_response_headers(request, decision, head)
            added += [_checked(name, value) for name, value in headers.items()]
        except Exception as error:
            hook.failed(error)
        else:
            hook.succeeded()
    return added


def _checked(name: str, value: str) -> tuple[str, bytes]:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise PluginError(f"{name!r}: {value[:80]!r} is no header; names are tokens, values have no control characters")
    return name.lower(), value.encode("utf-8", "surrogateescape")
