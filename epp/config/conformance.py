# SPDX-License-Identifier: Apache-2.0
"""The configuration under which the conformance tests of the Gateway API Inference Extension run.

Their fixture starts the endpoint picker without any configuration and steers it by a header of the request. So this is
the built-in configuration with the two plugins for it added; nobody else should run it, as clients choose endpoints.
"""

from __future__ import annotations

import json

from epp.config.profiles import DEFAULT_PROFILE, DEFAULT_WEIGHTS

SOURCE = "built-in configuration for conformance tests"
FILTER = "header-based-testing-filter"
VERIFIER = "destination-endpoint-served-verifier"


def conformance_text(pool_name: str) -> str:
    """The configuration as JSON. `pool_name` is told to clients; empty: it is not."""
    scorers = [{"pluginRef": name, "weight": weight} for name, weight in DEFAULT_WEIGHTS.items()]
    plugins = [
        {"type": FILTER, "parameters": {"required": False, "inTurn": True}},
        {"type": VERIFIER, "parameters": {"pool": pool_name}},
        *({"type": name} for name in DEFAULT_WEIGHTS),
    ]
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": DEFAULT_PROFILE, "plugins": [{"pluginRef": FILTER}, *scorers]}],
    }
    return json.dumps(document)
