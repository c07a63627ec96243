# SPDX-License-Identifier: Apache-2.0
"""`epp explain`: asks a running picker why a request went where it went, and says it in plain words."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from epp.contract.errors import EppError, UsageError
from epp.oneline import OneLineParser
from epp.service.explanation import explain

DEFAULT_URL = "http://127.0.0.1:9090"
PATH = "/debug/decisions"
MOST_DECISIONS = 1_000
MOST_BYTES = 64 << 20
TIMEOUT_S = 15.0


def main(argv: Sequence[str]) -> int:
    """0: explained; 1: no picker there, or it does not know the request; 2: the command line is wrong."""
    options = _parser().parse_args(argv)
    if options.request_id is not None and options.last is not None:
        raise UsageError("explain: give a request id or --last, not both")
    query = {"full": "1", "limit": str(options.last or 1)}
    if options.request_id is not None:
        query |= {"request_id": options.request_id, "limit": "10"}
    document = fetch(options.url, query, token_of(options.token_file), trust_of(options.ca_file))
    decisions = document["decisions"]
    if not decisions:
        raise EppError(f"the picker at {options.url} has made no decision yet")
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    # The oldest first, so that the newest stands above the prompt.
    texts = [explain(decision, None if options.all else options.rows) for decision in reversed(decisions)]
    sys.stdout.write(f"\n{'-' * 80}\n\n".join(texts))
    return 0


def token_of(path: str | None) -> str:
    """The token in a file, "" without one. Raises `UsageError`."""
    if path is None:
        return ""
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise UsageError(f"explain: --token-file {path} cannot be read: {reason}") from None
    if not token.isprintable() or not token or " " in token:
        raise UsageError(f"explain: --token-file {path} holds no token: it must be one word")
    return token


def trust_of(ca_file: str | None) -> ssl.SSLContext:
    """How a picker that speaks https is known: by the system's CAs, or by those of a file. Raises `UsageError`."""
    try:
        trust = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UsageError(f"explain: --ca-file {ca_file} cannot be used: {error.strerror or error}") from None
    # As for Go's clients: what is in the file is trusted as it is, also a certificate that may sign no other.
    trust.verify_flags = (trust.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return trust


def fetch(url: str, query: dict[str, str], token: str, trust: ssl.SSLContext) -> dict[str, Any]:
    """What the picker at `url` answers. Raises `EppError`, whose text is one line."""
    base = url if "://" in url else f"http://{url}"
    parts = _split(base)
    if parts is None:
        shown = url if url.isprintable() else ascii(url)
        raise UsageError(f"explain: --url {shown} must be the picker's metrics port, such as {DEFAULT_URL}")
    path = PATH if parts.path in ("", "/", "/metrics") else parts.path
    asked = urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, urllib.parse.urlencode(query), ""))
    request = urllib.request.Request(asked)
    if token:
        # Not for whom we may be sent on to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    # A proxy of the environment is for the way out, not for a port of ours.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return _read(url, response.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        raise EppError(_refusal(url, error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        why = getattr(reason, "strerror", None) or str(reason)
        raise EppError(
            f"no picker answers at {url}: {why}; give its metrics port with --url, such as --url {DEFAULT_URL}"
        ) from None
    except http.client.HTTPException:
        raise EppError(
            f"what answers at {url} does not speak HTTP/1; give the picker's metrics port with --url, "
            f"such as --url {DEFAULT_URL}"
        ) from None


def _split(base: str) -> urllib.parse.SplitResult | None:
    if not base.isascii() or not base.isprintable() or " " in base:
        return None
    try:
        parts = urllib.parse.urlsplit(base)
        # A port that is no number is found out when it is asked for.
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if known else None


def _read(url: str, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
        if isinstance(document["decisions"], list):
            return dict(document)
    except (ValueError, KeyError, TypeError):
        pass
    raise EppError(f"what answers at {url} is no endpoint picker of this kind; give its metrics port with --url")


def _refusal(url: str, error: urllib.error.HTTPError) -> str:
    line = error.read(1000).decode("utf-8", "replace").strip().partition("\n")[0]
    if error.code == 404 and "no decision for request id" in line:
        return (
            f"{line}; ids are what the gateway sends as x-request-id, another replica may have routed it, "
            "and --last 5 shows the newest"
        )
    if error.code == 404:
        return (
            f"{url} does not serve {PATH}: it is no metrics port of a picker, or that runs with --debug-endpoints=false"
        )
    if error.code == 401:
        return f"{url} answers 401: {line}; give it with --token-file FILE (kubectl create token NAME > FILE)"
    return f"{url} answers {error.code}: {line}"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST_DECISIONS):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {MOST_DECISIONS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp explain",
        description="Why did a request go to that endpoint? Asks a running picker (its last decisions are kept).",
        epilog="exit codes: 0 explained; 1 no picker there, or it does not know the request; 2 wrong command line",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("request_id", nargs="?", metavar="REQUEST_ID", help="its x-request-id; without it, the last decision")
    add("--last", type=_count, metavar="N", help=f"the last N decisions, 1 to {MOST_DECISIONS}")
    add("--url", default=DEFAULT_URL, help="the picker's metrics port (default: %(default)s)")
    add("--token-file", metavar="FILE", help="a Kubernetes token, where the picker asks for one")
    add("--ca-file", metavar="FILE", help="CA of the metrics port's certificate, for a --url of https")
    add("--rows", type=_count, default=12, metavar="N", help="candidates shown of each profile (default: %(default)s)")
    add("--all", action="store_true", help="show every candidate that is kept")
    add("--json", action="store_true", help="the records as JSON, as docs/explain.md describes them")
    return parser
