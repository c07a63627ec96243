# SPDX-License-Identifier: Apache-2.0
"""Which EndpointPickerConfig is whose, where one process serves many pools.

The first that there is:

1. the annotation `llm-d.ai/endpoint-picker-config` of the InferencePool, whose value is the configuration itself: it
   comes and goes with the pool, and needs no rights beyond those for pools
2. in --config-dir: `<namespace>.<pool>.yaml`, else `<pool>.yaml`, else `default.yaml` (or .yml, or .json)
3. --config-file or --config-text, for every pool
4. the built-in configuration
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from epp.config.load import BUILT_IN
from epp.service.pools.folder import Files
from epp.service.pools.identity import PoolId

ANNOTATION = "llm-d.ai/endpoint-picker-config"
DEFAULT = "default"


class Given(NamedTuple):
    """A configuration that was given: its text, where it is from, and `error` when it cannot be read."""

    text: str = ""
    source: str = BUILT_IN
    error: str = ""


BUILT_IN_CONFIGURATION = Given()


def choose(pool: PoolId, annotation: str, files: Files, otherwise: Given = BUILT_IN_CONFIGURATION) -> Given:
    """The configuration of `pool`, whose annotation is `annotation` ("" when it has none)."""
    if annotation.strip():
        return Given(annotation, f"annotation {ANNOTATION} of pool {pool}")
    for stem in _stems(pool):
        file = files.get(stem)
        if file is not None:
            return Given(file.text, str(file.path), file.error)
    return otherwise


def unused(files: Files, pools: Iterable[PoolId]) -> list[str]:
    """The files that are for none of `pools`, in order."""
    wanted = {stem for pool in pools for stem in _stems(pool)} | {DEFAULT}
    return sorted(file.path.name for stem, file in files.items() if stem not in wanted)


def _stems(pool: PoolId) -> tuple[str, ...]:
    return f"{pool.namespace}.{pool.name}", pool.name, DEFAULT
