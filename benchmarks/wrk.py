# SPDX-License-Identifier: Apache-2.0
"""The load of `benchmarks.load`, from wrk: faster, but it does not finish what is open when its time is up."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

GRACE_S = 15.0
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


Bodies = Sequence[tuple[bytes, bytes]]


def run(
    binary: str, port: int, connections: int, seconds: float, bodies: Bodies, extra: dict[str, str]
) -> dict[str, Any]:
    """Post `bodies` in turn, each with something unique in its cut. `extra` are further headers."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(lua(bodies, extra))
        script.flush()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        argv = [binary, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, "--latency", url]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + GRACE_S, check=True)
    return {"generator": "wrk", **figures(done.stdout)}


def lua(bodies: Bodies, extra: dict[str, str]) -> str:
    """The script wrk runs."""
    headers = ",".join(f'["{name}"]="{value}"' for name, value in {"content-type": "application/json", **extra}.items())
    parts = ",".join(f"{{[==[{start.decode()}]==],[==[{end.decode()}]==]}}" for start, end in bodies)
    return (
        f"local parts = {{{parts}}}\nlocal headers = {{{headers}}}\nlocal n = os.time() * 1000000\n"
        "request = function()\n  n = n + 1\n  local p = parts[n % #parts + 1]\n"
        '  return wrk.format("POST", nil, headers, p[1] .. string.format("%016x", n) .. p[2])\nend\n'
    )


def figures(output: str) -> dict[str, Any]:
    """wrk's report; failures are answers that are not 2xx or 3xx, and socket errors. ValueError without a total."""
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", output)
    if total is None:
        raise ValueError(f"wrk reported no total: {output.strip()[-200:]}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    latency = {
        f"p{name}_ms": float(value) * _MS[unit]
        for name, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    }
    return {
        "requests": int(total.group(1)),
        "seconds": float(total.group(2)) * {"ms": 1e-3, "s": 1.0, "m": 60.0}[total.group(3)],
        "failures": int(bad.group(1) if bad else 0) + sum(map(int, sockets.groups() if sockets else ())),
        **latency,
    }
