# SPDX-License-Identifier: Apache-2.0
"""Engines by what they imitate: rates and sizes of real pods, for `--profile`.

A step takes `t0 + a_B * B + a_K * K + n / R`: B sequences that decode, K tokens of context that they hold, n prompt
tokens. t0, a_B and a_K are BLIS' roofline fit (weights read once a step at 1.36 times the memory's time, 4.4 us a
sequence, the KV of the context read at 1.947 times the memory's time), R is the prefill rate: measured through a
gateway for the 32B pod, a roofline at 45 to 50 % of the peak for the others. Capacities are what is left of the
memory, the 32B pod's was measured (307,328 tokens). BLIS claims 7 to 9 % for its own runs; nothing here was
compared with a GPU. The part of attention that is quadratic in the prompt is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from epp.local.sim.engine import EngineConfig

PROFILES: Mapping[str, EngineConfig] = {
    "default": EngineConfig(),
    "llama-3.1-8b-h100": EngineConfig(
        prefill_tokens_per_s=31_000.0,
        decode_step_s=7.7e-3,
        decode_step_per_seq_s=4.4e-6,
        decode_step_per_context_token_s=7.6e-8,
        num_blocks=26_250,
    ),
    "qwen3-32b-2xh100": EngineConfig(
        prefill_tokens_per_s=15_928.0,
        decode_step_s=15.6e-3,
        decode_step_per_seq_s=4.4e-6,
        decode_step_per_context_token_s=7.6e-8,
        num_blocks=19_208,
    ),
    "llama-3-70b-4xh100": EngineConfig(
        prefill_tokens_per_s=12_600.0,
        decode_step_s=17.0e-3,
        decode_step_per_seq_s=4.4e-6,
        decode_step_per_context_token_s=4.8e-8,
        num_blocks=27_500,
    ),
}
