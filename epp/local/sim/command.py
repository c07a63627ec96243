# SPDX-License-Identifier: Apache-2.0
"""The command `epp sim-pod`: flags to a running pod, until SIGTERM or Ctrl-C, which end it at once."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, get_args

from epp.contract.errors import EppError, UsageError
from epp.local.sim.engine import EngineConfig
from epp.local.sim.generation import EngineName, PodConfig
from epp.local.sim.profiles import PROFILES
from epp.local.sim.site import Site
from epp.oneline import OneLineParser

DEFAULT_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def main(argv: Sequence[str]) -> int:
    """Run a pod with the flags `argv`. Returns the exit code: 1 cannot start, 2 wrong flags."""
    try:
        parser = _parser()
        parser.set_defaults(**_profile_defaults(parser.parse_args(argv).profile))
        args = parser.parse_args(argv)
        config = _config(args)
        return run_loop(_serve(config, args))
    except EppError as error:
        print(f"epp sim-pod: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def run_loop(main_coroutine: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main_coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main_coroutine)


def _profile_defaults(name: str) -> dict[str, Any]:
    engine = PROFILES[name]
    return {
        "prefill_tokens_per_s": engine.prefill_tokens_per_s,
        "decode_step_ms": engine.decode_step_s * 1e3,
        "decode_step_ms_per_seq": engine.decode_step_per_seq_s * 1e3,
        "decode_step_ns_per_context_token": engine.decode_step_per_context_token_s * 1e9,
        "num_gpu_blocks": engine.num_blocks,
    }


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not (value > 0 and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = kind.__name__
    return read


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp sim-pod", description="A simulated vLLM server: no GPU, no weights.", allow_abbrev=False
    )
    add = parser.add_argument
    count, rate = _positive(int), _positive(float)
    engine, pod = EngineConfig(), PodConfig("", (DEFAULT_MODEL,))
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8000, help="port to listen on, 0 for a free one (%(default)s)")
    add("--count", type=count, default=1, help="pods in this process, on ports one after the other (%(default)s)")
    add("--name", default="", help="the pod's name in x-inference-pod (sim-<host>-<port>); of several: NAME-0 and up")
    add("--model", action="append", metavar="NAME", help=f"served model name, repeatable ({DEFAULT_MODEL})")
    add("--lora", action="append", metavar="NAME", default=[], help="served LoRA adapter, repeatable")
    add("--seed", type=int, default=pod.seed, help="decides what the pod says (%(default)s)")
    add("--speed", type=rate, default=engine.speed, help="factor on all engine times (%(default)s)")
    add("--output-tokens", type=count, default=pod.output_tokens, help="length of an answer (%(default)s)")
    add("--max-model-len", type=count, default=pod.max_model_len, help="prompt and output, tokens (%(default)s)")
    add("--max-num-seqs", type=count, default=engine.max_num_seqs, help="sequences running at once (%(default)s)")
    add("--max-num-batched-tokens", type=count, default=engine.max_batched_tokens, help="tokens a step (%(default)s)")
    add("--block-size", type=count, default=engine.block_size_tokens, help="tokens a KV block (%(default)s)")
    add("--num-gpu-blocks", type=count, default=engine.num_blocks, help="KV blocks (%(default)s)")
    add("--prefill-tokens-per-s", type=rate, default=engine.prefill_tokens_per_s, help="prefill rate (%(default)s)")
    add("--decode-step-ms", type=rate, default=engine.decode_step_s * 1e3, help="length of a step (%(default)s)")
    for name, default, what in (
        ("--decode-step-ms-per-seq", engine.decode_step_per_seq_s * 1e3, "added for each sequence in the step"),
        ("--decode-step-ns-per-context-token", 0.0, "added for each token that these sequences hold"),
        ("--jitter", engine.jitter, "share by which a step may be longer or shorter, 0 to below 1"),
    ):
        add(name, type=float, default=default, help=f"{what} (%(default)s)")
    add(
        "--profile",
        choices=sorted(PROFILES),
        default="default",
        help="other defaults for the times and --num-gpu-blocks",
    )
    add("--engine", choices=get_args(EngineName), default=pod.shown_as, help="whose metrics page it has (%(default)s)")
    add("--old-kv-metric", action="store_true", help="name the KV metric vllm:gpu_cache_usage_perc, as old vLLM did")
    add(
        "--metrics-filter",
        choices=("/metrics", "/metrics/", "off"),
        default=pod.metrics_filter,
        help="path of the metrics page that obeys ?name[]= (%(default)s)",
    )
    add(
        "--admin",
        action=argparse.BooleanOptionalAction,
        help="faults and counts under /sim/, see docs/sim-pod.md (there when --host is a loopback address)",
    )
    return parser


def _config(args: argparse.Namespace) -> PodConfig:
    if not 0 <= args.port <= 65535 - (args.count - 1 if args.port else 0):
        several = f", and {args.count} pods need as many" if args.count > 1 else ""
        raise UsageError(f"--port {args.port}: a port is 0 to 65535{several}")
    for name in ("decode_step_ms_per_seq", "decode_step_ns_per_context_token"):
        value = getattr(args, name)
        if not 0 <= value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be 0 or more")
    if not 0 <= args.jitter < 1:
        raise UsageError(f"--jitter {args.jitter}: must be 0 or more and below 1")
    if args.old_kv_metric and args.engine != "vllm":
        raise UsageError(f"--old-kv-metric is a name of vLLM's, the engine is {args.engine}; leave one of them out")
    room = args.num_gpu_blocks * args.block_size
    if room < args.max_model_len:
        raise UsageError(
            f"--max-model-len {args.max_model_len}: the cache holds {room} tokens "
            f"({args.num_gpu_blocks} blocks of {args.block_size}); raise --num-gpu-blocks or lower --max-model-len"
        )
    return PodConfig(
        name=args.name,
        models=tuple(args.model or [DEFAULT_MODEL]),
        loras=tuple(args.lora),
        output_tokens=args.output_tokens,
        max_model_len=args.max_model_len,
        seed=args.seed,
        shown_as=args.engine,
        old_kv_name=args.old_kv_metric,
        metrics_filter=args.metrics_filter,
        engine=EngineConfig(
            max_num_seqs=args.max_num_seqs,
            max_batched_tokens=args.max_num_batched_tokens,
            prefill_tokens_per_s=args.prefill_tokens_per_s,
            decode_step_s=args.decode_step_ms / 1e3,
            decode_step_per_seq_s=args.decode_step_ms_per_seq / 1e3,
            decode_step_per_context_token_s=args.decode_step_ns_per_context_token / 1e9,
            block_size_tokens=args.block_size,
            num_blocks=args.num_gpu_blocks,
            speed=args.speed,
            jitter=args.jitter,
        ),
    )


async def _serve(config: PodConfig, args: argparse.Namespace) -> int:
    # A simulated pod dies like a killed one: what it was generating is lost.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    admin = _is_loopback(args.host) if args.admin is None else args.admin
    for number in range(args.count):
        name = f"{config.name}-{number}" if config.name and args.count > 1 else config.name
        port = args.port + number if args.port else 0
        one = replace(config, name=name, seed=config.seed + number)
        site = await Site(one, host=args.host, port=port, admin=admin).open()
        print(f"{site.pod.config.name} serves {', '.join(config.models)} on {site.url}", flush=True)
    await asyncio.get_running_loop().create_future()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
