# SPDX-License-Identifier: Apache-2.0
"""Which pool: a namespace and a name."""

from __future__ import annotations

from typing import NamedTuple

EVERY = "*"
"""In the place of a pool's name: every pool; in the place of a namespace: every namespace."""


class PoolId(NamedTuple):
    """The identity of an InferencePool."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
