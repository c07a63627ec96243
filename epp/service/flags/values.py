# SPDX-License-Identifier: Apache-2.0
"""Text to value, in the grammars of the command lines we must understand: Go's numbers, switches and durations,
Kubernetes' quantities and label selectors, metric selectors, addresses.

Pure functions of one text. Every one raises `ValueError` whose message completes "invalid argument "x": ..." by saying
what is allowed. Durations are seconds, sizes are bytes. Standard library only: this is on the way of `--help`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_INT64_MAX = 2**63 - 1
_LONGEST_NUMBER = 100
"""Characters; a longer text is refused before any arithmetic."""


class Address(NamedTuple):
    """An IP address in its canonical form (IPv6 without brackets) and a port 1..65535."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false (also t, f, 1, 0)")


_INT = re.compile(
    r"([+-]?)(0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)"
)


def parse_int(text: str) -> int:
    """Go's strconv.ParseInt with base 0: decimal, 0x, 0o, 0b, a leading 0 for octal, `_` between digits, 64 bits."""
    found = _INT.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if found is None:
        raise ValueError("must be a whole number")
    sign, digits = found.groups()
    digits = digits.replace("_", "")
    value = int(digits, 8) if digits.isdecimal() and digits[0] == "0" else int(digits, 0)
    if value > _INT64_MAX:
        raise ValueError("must be a whole number that fits into 64 bits")
    return -value if sign == "-" else value


_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign
    "μs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_duration_s(text: str) -> float:
    """Go's time.ParseDuration (`50ms`, `1m30s`, `-1.5h`, a bare `0`), in seconds, exact to the nanosecond."""
    wrong = ValueError("must be a duration with a unit, such as 50ms, 30s, 1m30s or 1h")
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if rest == "0":
        return 0.0
    if not rest or len(rest) > _LONGEST_NUMBER:
        raise wrong
    total_ns, at = 0, 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None or not (part[1] or part[2]):
            raise wrong
        unit_ns, fraction = _UNIT_NS[part[3]], part[2] or ""
        total_ns += int(part[1] or "0") * unit_ns + int(fraction or "0") * unit_ns // 10 ** len(fraction)
        at = part.end()
    if total_ns > _INT64_MAX:
        raise ValueError("must be a duration below 2562048h")
    return (-total_ns if sign == "-" else total_ns) / 1e9


_QUANTITY = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?")
_DECIMAL_EXPONENT = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_size_bytes(text: str) -> int:
    """A Kubernetes quantity with an optional last `B` or `b` (`10MiB`, `25MB`, `64Mi`, `1e6`), in bytes.

    As a Kubernetes Quantity's Value(): fractions are rounded up, what exceeds 64 bits is capped. Negative is refused.
    """
    bare = text[:-1] if text[-1:] in ("B", "b") else text
    found = _QUANTITY.fullmatch(bare) if len(bare) <= _LONGEST_NUMBER else None
    if found is None or not (found[2] or found[3]):
        raise ValueError("must be a size in bytes such as 65536, 64Mi, 10MiB, 25MB or 500k")
    if found[1] == "-":
        raise ValueError("must be a size of at least 0 bytes")
    suffix, fraction = found[4] or "", found[3] or ""
    mantissa, exponent, binary = int(found[2] + fraction), -len(fraction), 1
    if suffix.endswith("i"):
        binary = 1024 ** (1 + "KMGTPE".index(suffix[0]))
    elif len(suffix) > 1:
        exponent += int(suffix[1:])
    else:
        exponent += _DECIMAL_EXPONENT[suffix]
    above: int = mantissa * binary * 10 ** max(exponent, 0)
    below: int = 10 ** max(-exponent, 0)
    return min(-(-above // below), _INT64_MAX)


def parse_address(text: str) -> Address:
    """`IP:PORT` or `[IPv6]:PORT`. Names are refused: the proxy is told an address, never a name."""
    wrong = ValueError("must be IP:PORT or [IPv6]:PORT, with a port from 1 to 65535")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535 or "%" in host:
        raise wrong
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise wrong from None
    if bracketed != (ip.version == 6):
        raise wrong
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"must be the address of one machine, which {ip} is not")
    return Address(str(ip), int(port))


def parse_bind_ip(text: str) -> str:
    """An IP address to listen on, IPv6 with or without brackets; empty for every interface."""
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError("must be an IP address such as 127.0.0.1 or ::1, or empty for every interface") from None


_METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL = r'\s*[a-zA-Z_][a-zA-Z0-9_]*\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s"={},]+)\s*'
_LABELS = re.compile(rf"\s*|{_LABEL}(?:,{_LABEL})*")


def parse_metric(text: str) -> str:
    """`name` or `name{label=value,other="value"}`, checked and handed back trimmed; empty switches the signal off."""
    trimmed = text.strip()
    if not trimmed:
        return ""
    found = _METRIC.fullmatch(trimmed)
    if found is None or not _LABELS.fullmatch(found[2] or ""):
        raise ValueError('must be a metric: name, or name{label=value,other="value"}, or empty to switch it off')
    return trimmed


_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}"
_SET = rf"\(\s*(?:{_NAME})?(?:\s*,\s*(?:{_NAME})?)*\s*\)"
_REQUIREMENT = (
    rf"\s*(?:!\s*{_KEY}|{_KEY}(?:\s*(?:==|=|!=)\s*(?:{_NAME})?|\s+(?:in|notin)\s*{_SET}|\s*[<>]\s*-?[0-9]+)?)\s*"
)
_SELECTOR = re.compile(rf"{_REQUIREMENT}(?:,{_REQUIREMENT})*")


def parse_selector(text: str) -> str:
    """A Kubernetes label selector (`app=vllm,tier in (a,b),!canary`), checked and handed back; may be empty."""
    if text.strip() and not _SELECTOR.fullmatch(text):
        raise ValueError("must be a label selector such as app=vllm or app=vllm,role in (decode,both)")
    return text.strip()


_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


def parse_header_name(text: str) -> str:
    """The name of an HTTP header, lower-cased as HTTP/2 wants it."""
    if not _HEADER.fullmatch(text.lower()):
        raise ValueError("must be the name of an HTTP header such as x-gateway-destination-endpoint")
    return text.lower()


def parse_url_path(text: str) -> str:
    """The path of a URL, with an optional query: printable ASCII that begins with a slash."""
    if not re.fullmatch(r"/[!-~]*", text):
        raise ValueError("must be the path of a URL, beginning with /, without spaces")
    return text


_LEVELS = {"panic": -1, "error": -1, "info": 0, "debug": 1}


def parse_log_level(text: str) -> int:
    """A zap log level as a verbosity: error -1, info 0, debug 1, a whole number itself."""
    level = _LEVELS.get(text.lower())
    if level is not None:
        return level
    try:
        level = parse_int(text)
    except ValueError:
        level = -1
    if level < 0:
        raise ValueError("must be debug, info, error, or a whole number of at least 0")
    return level


_PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_port_range(text: str) -> tuple[int, int]:
    """`LOW-HIGH` or one port, each 1..65535."""
    found = _PORT_RANGE.fullmatch(text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found is not None else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise ValueError("must be LOW-HIGH, ports from 1 to 65535, such as 9010-9050")
    return low, high
