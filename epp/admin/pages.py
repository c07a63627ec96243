# SPDX-License-Identifier: Apache-2.0
"""What a page besides the metrics is: something that makes an answer from the query of a GET."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    """What a page says."""

    status: str
    content_type: str
    body: bytes


Page = Callable[[str], Answer]
"""Makes an answer from the query of a GET."""
