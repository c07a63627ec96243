# SPDX-License-Identifier: Apache-2.0
"""The expressions among routes' costs, checked where they stand: they are evaluated by other processes, and one that is
none would end those at their start."""

from __future__ import annotations

from epp.contract.errors import ConfigError
from epp.manifests.documents import Step
from epp.manifests.fields import dotted
from epp.manifests.sources import Sources
from epp.plugins.costs.cel import CelCost


def check_expressions(sources: Sources) -> None:
    """Tell every cost of type CEL that is no cost, as a mistake."""
    for document in sources.documents.of("AIGatewayRoute"):
        for index, cost in enumerate(document.spec.get("llmRequestCosts", [])):
            if cost.get("type") != "CEL" or not cost.get("cel"):
                continue
            path: tuple[Step, ...] = ("spec", "llmRequestCosts", index, "cel")
            try:
                CelCost(cost["cel"], dotted(path))
            except ConfigError as error:
                sources.mistake(document, path, str(error))
