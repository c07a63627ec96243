# SPDX-License-Identifier: Apache-2.0
"""A simulated vLLM pod: vLLM's HTTP surface over a discrete model of its engine. No model weights, no GPU."""
