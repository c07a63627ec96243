# SPDX-License-Identifier: Apache-2.0
"""What probing found, as a table for people and as JSON for programs.

In the table `-` is a signal that nobody reads and that is not there, `MISSING` one that the configuration reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.probe import Probe

_HEADINGS = ("ENDPOINT", "ENGINE", "PAGE", "FILTER", "WAITING", "RUNNING", "KV", "CACHE", "LORA", "TIME")
_MOST_NAMES = 3
_MOST_CAUSES = 20


def table(probes: Sequence[Probe], reads: Reads, most: int) -> str:
    """The endpoints with something wrong first, at most `most` of them, then what is wrong, then the sum."""
    ordered = sorted(probes, key=lambda each: (each.ok, each.endpoint.id))
    rows = [_HEADINGS, *(_row(each) for each in ordered[:most])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(ordered) > most:
        hidden = ordered[most:]
        wrong = sum(not each.ok for each in hidden)
        lines.append(f"... and {len(hidden)} more, {wrong} of them with something wrong; --rows shows more")
    lines.append("")
    lines.append(f"The configuration reads: {_names(reads)}.")
    lines += _causes(probes)
    good = sum(each.ok for each in probes)
    lines.append(f"{good} of {len(probes)} endpoints say all that is read.")
    return "\n".join(lines)


def document(probes: Sequence[Probe], reads: Reads) -> str:
    """Every endpoint, as one JSON object."""
    told = {
        "ok": all(each.ok for each in probes),
        "reads": [need.name.lower() for need in SCRAPED & reads if need.name],
        "endpoints": [_entry(each) for each in probes],
    }
    return json.dumps(told, indent=2)


def _row(each: Probe) -> tuple[str, ...]:
    if each.error and not each.page_bytes:
        return (each.endpoint.id, "?", "not read", *("-" for _ in _HEADINGS[4:]), f"{each.seconds * 1e3:.0f} ms")
    sample = each.sample
    cells = {
        "waiting": _number(sample.waiting),
        "running": _number(sample.running),
        "kv_utilization": "" if sample.kv_utilization is None else f"{sample.kv_utilization:.1%}",
        "num_blocks": _cache(sample),
        "lora": _lora(sample),
    }
    missing = {"num_blocks" if name == "block_size_tokens" else name for name in each.missing}
    signals = ["MISSING" if name in missing else text or "-" for name, text in cells.items()]
    engine = f"{each.engine or '?'} ({each.engine_from})" if each.engine_from else "?"
    page = f"{_bytes(each.page_bytes)}{', ' + each.tls if each.tls else ''}"
    filtered = f"{_bytes(each.filtered_bytes)} by {each.filter}" if each.filter else f"no: {each.whole_because}"
    return (each.endpoint.id, engine, page, filtered, *signals, f"{each.seconds * 1e3:.0f} ms")


def _causes(probes: Sequence[Probe]) -> list[str]:
    """What is wrong or should be known, once for each cause, with the endpoints it concerns."""
    concerned: dict[str, list[str]] = {}
    for each in probes:
        causes = [f"no usable {field} ({names})" for field, names in each.missing.items()]
        for cause in filter(None, (each.error, *causes, each.note)):
            concerned.setdefault(cause, []).append(each.endpoint.id)
    lines = []
    for cause, names in sorted(concerned.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"{', '.join(names[:_MOST_NAMES])}{more}: {cause}")
    if len(lines) > _MOST_CAUSES:
        lines[_MOST_CAUSES:] = [f"... and {len(lines) - _MOST_CAUSES} more causes"]
    return lines


def _entry(each: Probe) -> dict[str, Any]:
    sample = each.sample
    lora = None
    if sample.lora is not None:
        lora = {
            "running": sorted(sample.lora.running),
            "waiting": sorted(sample.lora.waiting),
            "max_adapters": sample.lora.max_adapters,
        }
    return {
        "endpoint": each.endpoint.id,
        "url": each.url,
        "ok": each.ok,
        "error": each.error or None,
        "note": each.note or None,
        "tls": each.tls or None,
        "engine": each.engine or None,
        "engine_from": each.engine_from or None,
        "page_bytes": each.page_bytes,
        "filter": each.filter or None,
        "filtered_bytes": each.filtered_bytes or None,
        "whole_because": each.whole_because or None,
        "seconds": round(each.seconds, 6),
        "signals": {
            "waiting": sample.waiting,
            "running": sample.running,
            "kv_utilization": sample.kv_utilization,
            "block_size_tokens": sample.block_size_tokens,
            "num_blocks": sample.num_blocks,
            "lora": lora,
        },
        "missing": dict(each.missing),
    }


def _names(reads: Reads) -> str:
    return ", ".join(need.name.lower() for need in SCRAPED & reads if need.name) or "no signal of a metrics page"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _cache(sample: Sample) -> str:
    if sample.num_blocks is None and sample.block_size_tokens is None:
        return ""
    return f"{_number(sample.num_blocks) or '?'} x {_number(sample.block_size_tokens) or '?'}"


def _lora(sample: Sample) -> str:
    if sample.lora is None:
        return ""
    most = f" of {sample.lora.max_adapters}" if sample.lora.max_adapters else ""
    return f"{sample.lora.in_use}{most}"


def _bytes(size: int) -> str:
    return f"{size} B" if size < 10_000 else f"{size / 1000:.0f} kB"
