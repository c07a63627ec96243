# SPDX-License-Identifier: Apache-2.0
"""Entries of Envoy's access log in words: what is left of limits, who answered, why it went wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from epp.local.chain.follow import Follow, request_line
from epp.local.chain.left import left_words, over_words, watched
from epp.manifests.limits import LimitPolicy, LimitRule, Unit

SEVERAL = "5, 1000;w=3600, 5;w=1, 1000000;w=86400"
REFUSED = "delayed_connect_error:_Connection_refused"
NOT_TRUSTED = (
    "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_X509_verify_cert:"
    "_certificate_verification_error_at_depth_0:_self_signed_certificate:TLS_error_end"
)
ANOTHER_NAME = (
    "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_SAN_matcher,"
    "_certificate_SANs_are_[DNS:a.example]:TLS_error_end"
)
AWAY = (
    "ext_proc_error_gRPC_error_14{upstream_connect_error_or_disconnect/reset_before_headers._reset_reason:"
    "_remote_connection_failure{upstream_reset_before_response_started{remote_connection_failure}}}"
)
SERVER = "10.0.0.5:8000"


@pytest.mark.parametrize(
    ("limit", "remaining", "words"),
    [
        ("1000, 1000;w=3600", "994", "994 of 1000 left this hour"),
        (SEVERAL, "4", "4 of 5 left this second"),
        ("5, 5;w=60;name=x", "0", "0 of 5 left this minute"),
        ("10, 10;w=60, 5;w=1", "0", "0 of 10 left this minute (only watched)"),
        # The same number over two times: which of them cannot be told.
        ("5, 5;w=1, 5;w=60", "4", "4 of 5 left"),
        ("100", "7", "7 of 100 left"),
        ("", "", ""),
        ("5, 5;w=1", "", ""),
    ],
)
def test_what_is_left(limit: str, remaining: str, words: str) -> None:
    assert left_words(limit, remaining, {(10, 60)}) == words


@pytest.mark.parametrize(
    ("limit", "reset", "words"),
    [
        ("1000, 1000;w=3600", "1884", "over 1000 an hour, again in 1884 s"),
        (SEVERAL, "1", "over 5 a second, again in 1 s"),
        ("10, 10;w=60, 5;w=1", "30", "over a limit"),
        ("", "", "over a limit"),
        ("7", "", "over 7"),
    ],
)
def test_over_a_limit(limit: str, reset: str, words: str) -> None:
    assert over_words(limit, reset, {(10, 60)}) == words


def test_only_watched_is_what_no_other_rule_enforces() -> None:
    rules = (
        LimitRule((), 10, Unit.MINUTE, shadow=True),
        LimitRule((), 5, Unit.SECOND, shadow=True),
        LimitRule((), 5, Unit.SECOND),
    )
    assert watched([LimitPolicy("n/p", rules)]) == {(10, 60)}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"costs": {"llm_total_token": 33}, "details": "via_upstream", "upstream": SERVER}, f"tokens: total 33, by {SERVER}"),
        ({"details": "via_upstream", "upstream": SERVER, "pod": "large-2"}, "by large-2"),
        ({"status": 500, "details": "via_upstream", "upstream": SERVER}, f"by {SERVER}"),
        (
            {"status": 503, "flags": "URX,UF", "failure": REFUSED, "upstream": SERVER},
            f"connection refused by {SERVER}",
        ),
        (
            {"status": 503, "flags": "URX,UF", "failure": NOT_TRUSTED, "upstream": SERVER},
            f"the certificate of {SERVER} is not trusted: self signed certificate",
        ),
        (
            {"status": 503, "flags": "UF", "failure": ANOTHER_NAME, "upstream": SERVER},
            f"the certificate of {SERVER} is for another name: DNS:a.example",
        ),
        (
            {
                "status": 503, "flags": "UF", "upstream": SERVER,
                "failure": "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
            },
            f"no TLS with {SERVER}: WRONG VERSION NUMBER",
        ),
        (
            {
                "status": 503, "flags": "UF", "upstream": SERVER, "duration_ms": 10012,
                "details": "upstream_reset_before_response_started{connection_timeout}",
            },
            f"no connection to {SERVER} in 10 s",
        ),
        ({"status": 503, "flags": "UF"}, "no connection to the server"),
        (
            {"status": 504, "flags": "UT", "upstream": SERVER, "duration_ms": 60001, "details": "response_timeout"},
            f"timed out after 60 s, by {SERVER}",
        ),
        ({"flags": "UC", "upstream": SERVER}, f"{SERVER} closed the connection"),
        ({"status": 503, "flags": "UH", "details": "no_healthy_upstream"}, "no server is there"),
        ({"status": 400, "flags": "XX"}, "XX"),
        ({"flags": "DC", "upstream": SERVER}, f"the client left: no tokens charged, by {SERVER}"),
        ({"flags": "DR", "costs": {"x": 1.5}}, "the client left, tokens: x 1.5"),
        (
            {"status": 429, "flags": "RL", "limit": SEVERAL, "remaining": "0", "reset": "1"},
            "over 5 a second, again in 1 s",
        ),
        # A provider's own refusal: its headers are its own.
        ({"status": 429, "details": "via_upstream", "upstream": SERVER}, f"by {SERVER}"),
        ({"status": 404, "details": "direct_response", "route": "no-route"}, "no route has this model"),
        ({"status": 404, "details": "direct_response", "route": "no-route", "model": None}, "no route"),
        ({"status": 400, "details": "direct_response", "route": "a/r/rule/0/without/x-user-id"}, "no x-user-id"),
        ({"status": 500, "details": "direct_response", "route": "a/r/rule/0"}, "the route has no backend"),
        ({"status": 400, "details": "model_missing"}, "no model"),
        ({"status": 405, "details": "method_not_allowed"}, "method not allowed"),
        ({"status": 503, "details": "ServiceUnavailable"}, "the endpoint picker: service unavailable"),
        ({"status": 500, "details": AWAY}, "the endpoint picker is away"),
        ({"status": 500, "details": AWAY, "model": None}, "the gateway process is away"),
        ({"status": 504, "details": "ext_proc_error_per-message_timeout_exceeded"}, "the endpoint picker fails"),
        ({"details": ""}, ""),
    ],
)  # fmt: skip
def test_why_and_by_whom(entry: dict[str, Any], said: str) -> None:
    line = request_line({"user": "u", "model": "m", "status": 200, "duration_ms": 7, "flags": "-", **entry})
    assert line.partition(" ms")[2].strip() == said


def test_a_simulated_pod_that_had_not_answered_yet_has_its_name() -> None:
    entry = {"status": 0, "flags": "DC", "upstream": SERVER}
    assert request_line(entry, names={SERVER: "pod-1"}).endswith("the client left: no tokens charged, by pod-1")
    assert request_line({**entry, "flags": "UC"}, names={SERVER: "pod-1"}).endswith(f"{SERVER} closed the connection")


async def test_why_a_request_of_the_try_out_failed_is_asked_of_envoy() -> None:
    said: list[str] = []
    follow = Follow(said.append, lambda: 0.0)

    def entry(name: str) -> str:
        return json.dumps({"status": 503, "flags": "UF", "failure": REFUSED, "upstream": SERVER, "request_id": name})

    follow.envoy_line(entry("early"))
    assert await follow.why("early") == f"connection refused by {SERVER}"
    asking = asyncio.ensure_future(follow.why("late"))
    await asyncio.sleep(0)
    follow.envoy_line(entry("another"))
    follow.envoy_line(entry("late"))
    assert await asking == f"connection refused by {SERVER}"
    assert said == []


def test_no_answer_has_no_status_and_reasons_are_no_commands_to_a_terminal() -> None:
    entry = {"user": "u", "model": "m", "status": 0, "duration_ms": 7, "flags": "DC"}
    assert request_line(entry) == "  -> u  m  ---      7 ms  the client left: no tokens charged"
    odd = {**entry, "status": 503, "flags": "UF", "failure": "a:\x1b[2J" + "y" * 500}
    assert request_line(odd).endswith("no connection to the server: ?[2J" + "y" * 76)
