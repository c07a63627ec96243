# SPDX-License-Identifier: Apache-2.0
"""What Envoy and the client are told of a decision besides the endpoint, when flags ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.contract.decision import Decision
from epp.director.headers import DESTINATION

SCORES = f"{DESTINATION}-scores"
DECISION = "x-epp-decision"


def with_scores(metadata: Mapping[str, Any], namespace: str, decision: Decision) -> Mapping[str, Any]:
    """`metadata` and, beside the destination in `namespace`, the total of every scored endpoint by its address.

    Candidates that were not picked are among them, those that a filter dropped are not. Without scorers there is
    nothing to add.
    """
    result = decision.result
    if not result.scores:
        return metadata
    totals = zip(result.endpoints, result.total.tolist(), strict=True)
    scores = {SCORES: {endpoint.address: total for endpoint, total in totals}}
    if not namespace:
        return {**metadata, **scores}
    return {**metadata, namespace: {**metadata[namespace], **scores}}


def summary(decision: Decision) -> bytes:
    """The decision in one line of ASCII, for a header."""
    result = decision.result
    target, total = decision.target, result.total.item(result.picked[0])
    parts = [f"endpoint={target.id}", f"address={target.address}", f"total={total:.3f}"]
    second = result.runner_up()
    if second is not None:
        margin = total - result.total.item(second)
        parts += [f"runner-up={result.endpoints[second].id}", f"margin={margin:.3f}"]
    parts.append(f"candidates={len(result.total)}")
    text = "; ".join(parts).encode("ascii", "backslashreplace")
    # Names come from files and people; a header takes no control characters.
    return bytes([byte if 0x20 <= byte < 0x7F else 0x3F for byte in text])
