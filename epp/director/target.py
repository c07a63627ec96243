# SPDX-License-Identifier: Apache-2.0
"""Which model an endpoint is asked for, and how urgent a request is: headers, and what the cluster's objects say.

The order of precedence is the Go EPP's (GIE, `InferenceModelRewrite`): a rule for the model that the client named,
else the header that names another, else the client's. An objective's priority goes before the model's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from epp.contract.errors import BadRequest
from epp.contract.models import Models, Target

OBJECTIVE = "x-llm-d-inference-objective"
OLD_OBJECTIVE = "x-gateway-inference-objective"
REWRITE = "x-llm-d-model-name-rewrite"
OLD_REWRITE = "x-gateway-model-name-rewrite"


def priority_of(models: Models, headers: Mapping[str, str], model: str) -> int:
    """The priority of the objective that the headers name, where there is one; else the model's; else 0."""
    if models.objectives:
        name = headers.get(OBJECTIVE) or headers.get(OLD_OBJECTIVE)
        priority = models.objectives.get(name) if name else None
        if priority is not None:
            return priority
    return models.priorities.get(model, 0) if models.priorities else 0


def target_of(models: Models, headers: Mapping[str, str], model: str, rng: random.Random) -> str:
    """The model to ask for when the client named `model` ("" when it is not known). Raises `BadRequest`."""
    targets = models.rewrites.get(model) or models.otherwise
    if targets:
        return targets[0].model if len(targets) == 1 else draw(targets, rng)
    named = headers.get(REWRITE) or headers.get(OLD_REWRITE)
    if not named:
        return model
    if not named.isascii() and any("\ud800" <= character <= "\udfff" for character in named):
        raise BadRequest(f"{REWRITE} holds bytes that are no UTF-8; send the model's name as UTF-8")
    return named


def draw(targets: Sequence[Target], rng: random.Random) -> str:
    """One of `targets`, which are not empty, at random: those that have a weight by their weights; when none has one,
    all alike."""
    weighted = [target for target in targets if target.weight is not None] or targets
    weights = [max(0, target.weight or 0) for target in weighted]
    return rng.choices(weighted, weights if any(weights) else None)[0].model
