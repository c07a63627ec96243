# SPDX-License-Identifier: Apache-2.0
"""Names of models as header values: the header routes the request, so what cannot stand in it names no model."""

from __future__ import annotations

import re

LISTENER_HEADER = "x-epp-listener"
"""In the metadata of Envoy's ext_proc stream: which listener the request came through."""
MOST_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def header_fault(name: str) -> str | None:
    """What keeps `name` from being a header's value, to be said after it; None when nothing does."""
    if not name:
        return "is empty"
    if _CONTROL.search(name):
        return "has control characters, which no header may have"
    if name[0] == " " or name[-1] == " ":
        return "begins or ends with a blank, which no header keeps"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not Unicode: it has half of a surrogate pair"
    return f"has {size} bytes; allowed: {MOST_BYTES}" if size > MOST_BYTES else None
