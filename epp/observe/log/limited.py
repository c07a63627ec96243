# SPDX-License-Identifier: Apache-2.0
"""Clients choose their requests' ids and the names of models, of any length. No line and no record holds more of such
a text than its beginning.
"""

from __future__ import annotations

MOST_CHARACTERS = 256


def limited(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text`, of which what is longer than `most` characters is cut and ends in "...". The same when done twice."""
    return text if len(text) <= most else text[: most - 3] + "..."
