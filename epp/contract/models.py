# SPDX-License-Identifier: Apache-2.0
"""What a cluster's objects say about models: priorities, and which model is asked for in the place of another.

Precedence is worked out by whoever makes a `Models`, so that a request only looks up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may be asked for. `weight` is 1..1000000, None where none was given."""

    model: str
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """* objectives: priority by the name of an InferenceObjective; higher is served first, below 0 may be shed
    * priorities: priority by model (an InferenceModel's criticality: Critical 1, Standard 0, Sheddable -1)
    * rewrites: what is asked for when a client names the model
    * otherwise: what is asked for when no name in `rewrites` fits; () leaves the model as it is
    """

    objectives: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    priorities: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    rewrites: Mapping[str, tuple[Target, ...]] = field(default_factory=lambda: MappingProxyType({}))
    otherwise: tuple[Target, ...] = ()
