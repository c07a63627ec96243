# SPDX-License-Identifier: Apache-2.0
"""A scorer in three lines: prefer endpoints with free KV cache.

    epp serve --plugin-dir plugins --configFile plugins/free_kv.yaml --endpoints 127.0.1.1:8000,127.0.1.2:8000

Every .py file of the plugin directory is loaded; a configuration names the plugin by its type, here `free-kv`.
`reads` says what the plugin looks at, so that it is fetched: without it, nobody would scrape the metrics pages.
"""

from epp.api import Endpoints, FloatArray, InferenceRequest, Reads, scorer


@scorer("free-kv", reads=Reads.KV_UTILIZATION)
def free_kv(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    """1 for an empty KV cache, 0 for a full one; one value per endpoint."""
    return 1.0 - endpoints.kv_utilization
