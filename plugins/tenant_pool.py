# SPDX-License-Identifier: Apache-2.0
"""A filter with parameters: tenants who own endpoints use those, everybody else shares the rest.

    epp serve --plugin-dir plugins --configFile plugins/tenant_pool.yaml --endpoints-file endpoints.yaml

Label a tenant's pods `tenant: acme`, leave shared pods without that label, and let the gateway set the header
`x-tenant` on each request (set it there, from what it has authenticated; a client could write anything).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import BoolArray, Endpoints, InferenceRequest, PluginContext, filter  # noqa: A004


@filter("tenant-pool-filter")
class TenantPoolFilter:
    """Keeps the tenant's own endpoints; if there are none, those that nobody owns; if there are none, all.

    With `strict` the last step is left out: no endpoint remains, and the request is answered with status 429.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* header: the request header that names the tenant
        * label: the endpoint label that names its owner
        * strict: refuse rather than use endpoints of another tenant
        """

        header: str = "x-tenant"
        label: str = "tenant"
        strict: bool = False

        def __post_init__(self) -> None:
            # A ValueError becomes one line of `epp check`, with the place in the file.
            if not self.header or not self.label:
                raise ValueError("header and label must not be empty; leave them out for x-tenant and tenant")

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._header = parameters.header.lower()
        self._label = parameters.label
        self._strict = parameters.strict

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        """True for the endpoints to keep, shape (n,)."""
        owners = endpoints.label(self._label)
        tenant = request.headers.get(self._header) or None
        for owner in (tenant, None):
            kept: BoolArray = owners == owner
            if kept.any():
                return kept
        return np.full(len(endpoints), not self._strict)
