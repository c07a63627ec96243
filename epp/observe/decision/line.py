# SPDX-License-Identifier: Apache-2.0
"""One routed request as a line of the decision log: enough to run another policy on it. docs/explain.md describes it.

Per-candidate values are arrays in the order of `endpoints`, as they were at the moment of the choice. Never prompt
text, and no header but the request id; prompts are told by keyed hashes of their blocks at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from epp.contract.decision import ProfileResult
from epp.contract.endpoints import Columns, Endpoint, Endpoints, FloatArray
from epp.contract.signals import Signal
from epp.contract.snapshot import Snapshot
from epp.observe.decision.record import Record

VERSION = 1
BLOCK_TOKENS = 64
"""Of the blocks that prompt hashes stand for; a token is four bytes of the prompt stream."""
MOST_BLOCKS = 4096
"""Blocks hashed of one request, all its prompts together."""

_SIGNALS = tuple([name for name in Columns.NAMES if name != "scraped_at_s"])
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE

PromptHashes = list[NDArray[np.uint64]]


class LineMaker:
    """Makes lines. `run` tells processes apart; `unix_at_zero_s` is the Unix time of the clock's zero.

    Not for several threads at once: it remembers the names of the candidates of the last line, which are mostly the
    same ones.
    """

    def __init__(self, run: str, unix_at_zero_s: float) -> None:
        self._run = run
        self._unix_at_zero_s = unix_at_zero_s
        self._named: tuple[object, object, list[str], list[str]] = (None, None, [], [])

    def line(self, record: Record, hashes: PromptHashes | None = None) -> bytes:
        """The record as one line of JSON, newline included."""
        fields = self._fields(record)
        if hashes is not None:
            fields["prompt_hashes"] = {"block_tokens": BLOCK_TOKENS, "prompts": hashes}
        fields["outcome"] = record.outcome()
        if record.pool:
            fields["pool"] = record.pool
        try:
            return orjson.dumps(fields, option=_OPTIONS)
        except TypeError:
            # Bytes of a header or body that are no UTF-8.
            for name in ("id", "model", "target_model"):
                fields[name] = fields[name].encode("utf-8", "replace").decode()
            return orjson.dumps(fields, option=_OPTIONS)

    def _fields(self, record: Record) -> dict[str, Any]:
        decision, zero_s = record.decision, self._unix_at_zero_s
        known = decision.known
        if known is None:
            raise ValueError("a decision without a snapshot cannot be logged")
        names, addresses = self._names(known.endpoints)
        places = {row: at for at, row in enumerate(known.endpoints.rows.tolist())}
        return {
            "v": VERSION,
            "run": self._run,
            "number": record.number,
            "id": decision.request_id,
            "received_s": round(record.received_s + zero_s, 6),
            "decided_s": round(decision.at_s + zero_s, 6),
            "scheduling_s": round(record.scheduling_s, 9),
            "model": decision.model,
            "target_model": decision.target_model,
            "priority": record.priority,
            "stream": record.stream,
            "body_bytes": record.body_bytes,
            "prompt_tokens": record.prompt_tokens,
            "max_output_tokens": record.max_output_tokens,
            "candidates": decision.candidates,
            "endpoints": names,
            "addresses": addresses,
            "signals": {name: known.column(name) for name in _SIGNALS},
            "age_s": _ages(known),
            "primary": decision.primary,
            "profiles": [_profile(result, places) for result in decision.results.values()],
            "charged_tokens": record.charged_tokens,
        }

    def _names(self, endpoints: Endpoints) -> tuple[list[str], list[str]]:
        identities, rows, names, addresses = self._named
        if identities is not endpoints.identities or rows is not endpoints.rows:
            lived: list[Endpoint] = list(endpoints)
            names, addresses = [e.id for e in lived], [e.address for e in lived]
            self._named = (endpoints.identities, endpoints.rows, names, addresses)
        return names, addresses


def prompt_hashes(prompts: Sequence[bytes], key: bytes) -> PromptHashes:
    """Per prompt a chain: number i stands for everything up to the end of block i, under `key` (up to 64 bytes).

    Equal numbers mean equal prefixes, which is all that prefix routing needs. Without the key nobody can tell whether
    a guessed text was among them. A shorter last block is left out.
    """
    block_bytes = BLOCK_TOKENS * 4
    left = MOST_BLOCKS
    chains: PromptHashes = []
    for prompt in prompts:
        chain: list[int] = []
        running = hashlib.blake2b(key=key, digest_size=8)
        for start in range(0, min(len(prompt) // block_bytes, left) * block_bytes, block_bytes):
            running.update(prompt[start : start + block_bytes])
            chain.append(int.from_bytes(running.copy().digest(), "little"))
        left -= len(chain)
        chains.append(np.array(chain, dtype=np.uint64))
        if left <= 0:
            break
    return chains


def _ages(known: Snapshot) -> dict[str, Any]:
    """Seconds since each signal was heard, by candidate, to the microsecond; what was never heard becomes null."""
    return {signal.name.lower(): known.age_s(signal).round(6) for signal in Signal}


def _profile(result: ProfileResult, places: dict[int, int]) -> dict[str, Any]:
    def where(rows: Any) -> list[int]:
        return [places[row] for row in rows.tolist() if row in places]

    return {
        "name": result.profile,
        "endpoints": where(result.endpoints.rows),
        "omitted": result.omitted,
        "filters": [
            {"name": f.name, "before": f.before, "dropped": len(f.dropped_rows), "endpoints": where(f.dropped_rows)}
            for f in result.filters
        ],
        "scorers": [
            {"name": s.name, "weight": s.weight, "raw": _finite(s.raw), "error": s.error} for s in result.scores
        ],
        "total": np.ascontiguousarray(result.total),
        "picked": list(result.picked),
    }


def _finite(raw: FloatArray) -> FloatArray:
    """JSON has no infinity: the largest number stands for it, which is limited to the same score."""
    return np.ascontiguousarray(raw if np.isfinite(raw).all() else np.nan_to_num(raw))
