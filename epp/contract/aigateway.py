# SPDX-License-Identifier: Apache-2.0
"""Names of Envoy AI Gateway that manifests, Envoy's configuration and the processes behind it must agree on."""

from __future__ import annotations

MODEL_HEADER = "x-ai-eg-model"
"""The header with the model's name, by which Envoy routes."""
COST_NAMESPACE = "io.envoy.ai_gateway"
"""The namespace of the dynamic metadata with what an answer cost."""
