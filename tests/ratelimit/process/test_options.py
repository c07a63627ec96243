# SPDX-License-Identifier: Apache-2.0
"""The command line: defaults, every flag, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.contract.errors import UsageError
from epp.ratelimit.options import parse

CONFIG = ("--config", "rules.yaml")


def test_defaults_make_a_file_enough() -> None:
    options = parse(CONFIG, {})
    assert (options.config, options.bind_address, options.port, options.metrics_port) == (
        (Path("rules.yaml"),),
        "127.0.0.1",
        8081,
        6070,
    )
    assert (options.redis, options.window, options.on_storage_failure) == (None, "fixed", "allow")
    assert (options.storage_timeout_s, options.drain_timeout_s, options.most_counters) == (0.1, 5.0, 1_000_000)
    assert (options.cert_path, options.client_ca_file, options.key_prefix) == (None, None, "epp")
    assert (options.response_headers, options.shadow, options.check) == (False, False, False)
    assert (options.log_encoder, options.verbosity) == ("json", 2)


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (("--config", "b"), "config", (Path("rules.yaml"), Path("b"))),
        (("--bind-address", "[::1]"), "bind_address", "::1"),
        (("--bind-address", ""), "bind_address", ""),
        (("--port", "0"), "port", 0),
        (("--metrics-port=65535",), "metrics_port", 65535),
        (("--cert-path", "tls"), "cert_path", Path("tls")),
        (("--window", "sliding"), "window", "sliding"),
        (("--on-storage-failure", "error"), "on_storage_failure", "error"),
        (("--storage-timeout", "1m30s"), "storage_timeout_s", 90.0),
        (("--most-counters", "5"), "most_counters", 5),
        (("--key-prefix", "prod"), "key_prefix", "prod"),
        (("--response-headers",), "response_headers", True),
        (("--shadow",), "shadow", True),
        (("--drain-timeout", "0"), "drain_timeout_s", 0.0),
        (("--log-encoder", "console"), "log_encoder", "console"),
        (("--zap-encoder", "console"), "log_encoder", "console"),
        (("-v", "4"), "verbosity", 4),
        (("--check",), "check", True),
        (("--redis", "rediss://a:1/2"), "redis", "rediss://a:1/2"),
        (("--redis", "localhost:6379"), "redis", "redis://localhost:6379"),
        (("--redis", "unix:///run/redis.sock?db=0"), "redis", "unix:///run/redis.sock?db=0"),
    ],
)
def test_flags(flags: tuple[str, ...], field: str, value: object) -> None:
    assert getattr(parse((*CONFIG, *flags), {}), field) == value


def test_redis_from_the_environment_and_which_one_holds() -> None:
    environ = {"REDIS_URL": "redis://:secret@a:1"}
    options = parse(CONFIG, environ)
    assert (options.redis, options.redis_in_argv) == ("redis://:secret@a:1", False)
    options = parse((*CONFIG, "--redis", "redis://b"), environ)
    assert (options.redis, options.redis_in_argv) == ("redis://b", True)
    # Empty: in memory, whatever the environment says.
    assert parse((*CONFIG, "--redis", ""), environ).redis is None
    assert parse(CONFIG, {"REDIS_URL": ""}).redis is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "--config is missing"),
        ((*CONFIG, "--port", "65536"), "'65536' is no port; allowed: 0 to 65535"),
        ((*CONFIG, "--port", "-1"), "--port"),
        (
            (*CONFIG, "--bind-address", "localhost"),
            "'localhost' is no IP address; allowed: an address such as 127.0.0.1",
        ),
        ((*CONFIG, "--storage-timeout", "5"), "'5' is no duration; allowed: 0s to 1h"),
        ((*CONFIG, "--storage-timeout", "0s"), "'0s' is too short; allowed: 1ms to 1h"),
        ((*CONFIG, "--drain-timeout", "2h"), "'2h' is no duration; allowed: 0s to 1h"),
        ((*CONFIG, "--most-counters", "0"), "'0' is no number of counters; allowed: 1 to 100000000"),
        ((*CONFIG, "--key-prefix", "a b"), "'a b' is no prefix"),
        ((*CONFIG, "--window", "rolling"), "invalid choice: 'rolling'"),
        ((*CONFIG, "--client-ca-file", "ca.pem"), "--client-ca-file needs --cert-path"),
        ((*CONFIG, "--windows", "fixed"), "--windows"),
    ],
)
def test_mistakes_are_one_line(argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@:1",
        "redis://:secret@host:port",
        "://secret",
        "redis://:secret@[::1",
        "mysql://:secret@host",
        "http://:secret@host:6379",
        "unix://secret",
    ],
)
def test_a_bad_url_is_not_shown(url: str) -> None:
    for argv, environ in (((*CONFIG, "--redis", url), {}), (CONFIG, {"REDIS_URL": url})):
        with pytest.raises(UsageError, match="the URL of Redis cannot be used") as caught:
            parse(argv, environ)
        assert "secret" not in str(caught.value)


def test_help_tells_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(("--help",), {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--config", "--redis", "--window", "--on-storage-failure", "--client-ca-file", "--drain-timeout"):
        assert flag in text
