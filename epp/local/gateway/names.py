# SPDX-License-Identifier: Apache-2.0
"""What clusters, filters and secrets are called in the bootstrap, as they show in Envoy's statistics and logs."""

from __future__ import annotations

GATEWAY_CLUSTER = "gateway"
RATELIMIT_CLUSTER = "ratelimit"

GATEWAY_FILTER = "envoy.filters.http.ext_proc/gateway"
RATELIMIT_FILTER = "envoy.filters.http.ratelimit"


def picker_filter(pool: str) -> str:
    """The ext_proc filter of a pool's endpoint picker."""
    return f"envoy.filters.http.ext_proc/endpointpicker/{pool}"


def picker_cluster(pool: str) -> str:
    """The endpoint picker of a pool."""
    return f"picker/{pool}"


def pool_cluster(pool: str) -> str:
    """The pods of a pool."""
    return f"pool/{pool}"


def backend_cluster(backend: str) -> str:
    """The endpoints of a plain backend."""
    return f"backend/{backend}"
