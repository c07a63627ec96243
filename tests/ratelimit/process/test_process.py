# SPDX-License-Identifier: Apache-2.0
"""The process from outside: an independent client, TLS, reload, storage, pages, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.service.ratelimit import v3 as rls
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase

from tests.e2e.stack import PATIENCE_S, ROOT
from tests.ratelimit.process.support import (
    DOMAIN,
    METHOD,
    OK,
    OVER,
    PASSWORD,
    Client,
    client,
    free_port,
    of_user,
    redis,
    request,
    rules,
    serving,
)
from tests.service.test_admin_tls import signed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The seed's limit, a thousand an hour, as a file."""
    file = tmp_path / "rules.yaml"
    file.write_text(rules())
    return file


def test_a_user_over_the_limit_and_one_who_is_not(config: Path) -> None:
    with serving(config) as service, client(service.port) as ask:
        fresh = ask.ask(of_user("alice", 0))
        assert (fresh.overall_code, fresh.statuses[0].limit_remaining) == (OK, 1000)
        limit = fresh.statuses[0].current_limit
        assert (limit.requests_per_unit, limit.unit.name) == (1000, "HOUR")
        assert 0 < fresh.statuses[0].duration_until_reset.total_seconds() <= 3600
        assert ask.ask(of_user("alice", 999)).statuses[0].limit_remaining == 1
        assert ask.ask(of_user("alice", 1)).overall_code == OK
        # At exactly 1,000 one more is let in; what it costs is booked when it is over.
        assert ask.ask(of_user("alice", 0)).overall_code == OK
        assert ask.ask(of_user("alice", 50)).overall_code == OVER
        assert ask.ask(of_user("alice", 0)).overall_code == OVER
        assert ask.ask(of_user("bob", 0)).statuses[0].limit_remaining == 1000
        assert ask.ask(request(("route", "other"), ("rule-0-match-0", "alice"), addend=0)).overall_code == OK
        unknown = ask.ask(request(("route", "other")))
        assert (unknown.overall_code, unknown.statuses[0].current_limit) == (OK, None)
        page = service.metrics()
        assert page.sum("epp_ratelimit_hits_total", rule=f"{DOMAIN}.route.rule-0-match-0", stat="over_limit") == 50
        assert page.sum("epp_ratelimit_hits_total", rule=f"{DOMAIN}.route.rule-0-match-0", stat="total_hits") == 1050
        assert page.sum("epp_ratelimit_counters") == 1  # Looking makes none.
        assert page.sum("epp_ratelimit_rules", domain=DOMAIN) == 1
        assert page.sum("epp_ratelimit_call_duration_seconds_count") == 9
        # Not one name of a user, on any page or in the log.
        seen = [service.page(path)[1] for path in ("/metrics", "/rlconfig", "/debug/limits")] + service.lines
        assert not [text for text in seen if "alice" in text or "bob" in text]
        assert service.complaints() == []


async def test_many_calls_at_once_over_aio(config: Path) -> None:
    with serving(config) as service:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            ask = Client(channel)
            answers = await asyncio.gather(*[ask.ask(of_user("alice", 1)) for _ in range(1200)])
    codes = [answer.overall_code for answer in answers]
    assert (codes.count(OK), codes.count(OVER)) == (1000, 200)
    # Each call saw a state of its own.
    assert sorted(answer.statuses[0].limit_remaining for answer in answers if answer.overall_code == OK) == [
        *range(1000)
    ]


class Codec(CodecBase):
    """envoy-data-plane's messages for grpclib."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.parse(data)


async def test_grpclib_on_a_connection_of_its_own(config: Path) -> None:
    with serving(config) as service:
        async with Channel("127.0.0.1", service.port, codec=Codec()) as channel:
            ask = UnaryUnaryMethod(channel, METHOD, rls.RateLimitRequest, rls.RateLimitResponse)
            answers = [await ask(of_user("alice", 600)) for _ in range(2)]
        assert [answer.overall_code for answer in answers] == [OK, OVER]


async def test_none_is_lost_when_it_stops(config: Path) -> None:
    codes: list[Any] = []
    enough = asyncio.Event()
    with serving(config, "--drain-timeout=300ms") as service:

        async def load(ask: Client) -> None:
            while True:
                try:
                    codes.append((await ask.ask(of_user("alice", 1))).overall_code)
                    if len(codes) >= 500:
                        enough.set()
                except grpc.aio.AioRpcError as error:
                    # The connection is closed, and nobody listens any more.
                    assert error.code() == grpc.StatusCode.UNAVAILABLE
                    assert "refused" in (error.details() or "")
                    return

        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            running = [asyncio.create_task(load(Client(channel))) for _ in range(20)]
            await enough.wait()
            service.signal(signal.SIGTERM)
            await asyncio.gather(*running)
        assert await asyncio.to_thread(service.ended) == 0
    assert codes.count(OK) == min(1000, len(codes))


def test_calls_that_are_wrong_end_alone(config: Path) -> None:
    with serving(config) as service, client(service.port) as ask:
        for wrong, said in ((request(domain=""), "domain must not be empty"), (of_user("a"), None)):
            if said is None:
                assert ask.ask(wrong).overall_code == OK
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    ask.ask(wrong)
                assert (caught.value.code(), said in caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            raw = channel.unary_unary(METHOD)
            with pytest.raises(grpc.RpcError) as caught:
                raw(b"\xff\xff\xff")
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.RpcError) as caught:
                raw(b"x" * (2 << 20))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask.ask(of_user("a")).overall_code == OK
        assert service.metrics().sum("epp_ratelimit_call_errors_total", reason="malformed") == 1
        assert service.metrics().sum("epp_ratelimit_call_errors_total", reason="invalid") == 1


def test_health_and_pages(config: Path) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(config, "--drain-timeout=30s"))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{service.port}"))
        stub = health_pb2_grpc.HealthStub(channel)

        def status(name: str) -> Any:
            return stub.Check(health_pb2.HealthCheckRequest(service=name)).status

        names = ("", "envoy.service.ratelimit.v3.RateLimitService", "readiness", "liveness")
        assert {status(name) for name in names} == {health_pb2.HealthCheckResponse.SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            status("stranger")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        line = (
            f"{DOMAIN}.route.rule-0-match-0: unit=HOUR requests_per_unit=1000, shadow_mode: false, quota_mode: false\n"
        )
        assert service.page("/rlconfig") == (200, line)
        shown = json.loads(service.page("/debug/limits")[1])
        assert (shown["storage"], shown["window"], shown["away"]) == ("memory", "fixed", None)
        assert shown["domains"][DOMAIN][0]["requests_per_unit"] == 1000
        assert service.page("/healthcheck") == (200, "OK\n")
        assert service.page("/readyz")[0] == 200
        # Stopping: not ready, still alive and answering.
        service.signal(signal.SIGTERM)
        service.say("stopping: ")
        assert service.page("/healthcheck") == (500, "stopping\n")
        assert service.page("/readyz")[0] == 503
        assert [status(name) for name in names] == [2, 2, 2, 1]
        with client(service.port) as ask:
            assert ask.ask(of_user("a")).overall_code == OK
        service.signal(signal.SIGTERM)
        assert service.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(config: Path, number: signal.Signals) -> None:
    flags = () if number is signal.SIGTERM else ("--drain-timeout=1h",)
    with serving(config, *flags) as service, client(service.port) as ask:
        ask.ask(of_user("a"))
        service.signal(number)
        assert service.ended() == 0
        assert service.lines[-1].endswith('"msg":"stopped"}')
        assert service.complaints() == []


def test_changed_rules_are_used_and_counters_stay(tmp_path: Path) -> None:
    # As a ConfigMap is mounted: the folder's files are links through ..data, which is swapped.
    def version(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.yaml").write_text(text)
        link = tmp_path / "..next"
        link.symlink_to(name)
        os.replace(link, tmp_path / "..data")

    version("..1", rules(100))
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    with serving(tmp_path) as service, client(service.port) as ask:
        assert ask.ask(of_user("a", 150)).overall_code == OVER
        version("..2", rules(200))
        service.say("changed and is in use: 1 rule of domain ")
        assert ask.ask(of_user("a", 0)).statuses[0].limit_remaining == 50
        before = len(service.lines)
        version("..3", rules(200).replace("hour", "fortnight"))
        assert "invalid rate limit unit 'fortnight'" in service.say("rules kept as they are", before)
        assert ask.ask(of_user("a", 0)).statuses[0].limit_remaining == 50
        assert service.metrics().sum("epp_ratelimit_config_stale") == 1
        version("..4", rules(200))
        service.say("again the one in use")
        version("..5", rules(300))
        service.say("changed and is in use", before)
        assert ask.ask(of_user("a", 0)).statuses[0].limit_remaining == 150
        page = service.metrics()
        assert page.sum("epp_ratelimit_config_stale") == 0
        assert page.sum("epp_ratelimit_config_loads_total", result="good") == 2
        assert page.sum("epp_ratelimit_config_loads_total", result="bad") == 1
        # Said once, not once a second.
        assert len(service.complaints()) == 1


def test_tls_with_certificates_of_clients(config: Path, tmp_path: Path) -> None:
    ours, authority, stranger = signed("localhost"), signed("ca", ca=True), signed("stranger", ca=True)
    (tmp_path / "tls.crt").write_bytes(ours[0])
    (tmp_path / "tls.key").write_bytes(ours[1])
    (tmp_path / "clients.pem").write_bytes(authority[0])
    flags = (f"--cert-path={tmp_path}", f"--client-ca-file={tmp_path / 'clients.pem'}")

    def credentials(by: tuple[bytes, bytes] | None) -> grpc.ChannelCredentials:
        certificate, key = signed("envoy", by) if by else (None, None)
        return grpc.ssl_channel_credentials(ours[0], key, certificate)

    with serving(config, *flags) as service:
        with client(service.port, credentials(authority)) as ask:
            assert ask.ask(of_user("a")).overall_code == OK
        for unknown in (None, credentials(None), credentials(stranger)):
            with client(service.port, unknown) as ask, pytest.raises(grpc.RpcError) as caught:
                ask.ask(of_user("a"))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        # Another authority, while it runs.
        (tmp_path / "clients.pem").write_bytes(stranger[0])
        service.say("was replaced")
        with client(service.port, credentials(stranger)) as ask:
            assert ask.ask(of_user("a")).overall_code == OK


def test_the_window_passes(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(rules(5, "second"))
    with serving(file) as service, client(service.port) as ask:
        over = None
        while over is None:  # A window may end between two calls.
            for _ in range(7):
                answer = ask.ask(of_user("a", 1))
            over = answer if answer.overall_code == OVER else None
        deadline_s = time.monotonic() + 10
        while ask.ask(of_user("a", 0)).overall_code == OVER:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)


@pytest.mark.parametrize(("policy", "said"), [("allow", OK), ("deny", OVER), ("error", None)])
def test_the_storage_goes_and_comes_back(config: Path, tmp_path: Path, policy: str, said: Any) -> None:
    port = free_port()
    env = {"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}"}
    with contextlib.ExitStack() as stack:
        # It starts without, too.
        service = stack.enter_context(serving(config, f"--on-storage-failure={policy}", env=env))
        ask = stack.enter_context(client(service.port))
        assert service.metrics().sum("epp_ratelimit_storage_away") == 1
        assert service.page("/readyz")[0] == 200
        with redis(tmp_path, port):
            wait_for(lambda: service.metrics().sum("epp_ratelimit_storage_away") == 0)
            assert ask.ask(of_user("alice", 400)).statuses[0].limit_remaining == 600
        # The first one finds out that the store is gone, the second one knows.
        for cost in (7, 4):
            if said is None:
                with pytest.raises(grpc.RpcError) as caught:
                    ask.ask(of_user("alice", cost))
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            else:
                answer = ask.ask(of_user("alice", cost))
                assert (answer.overall_code, answer.statuses[0].current_limit) == (said, None)
        page = service.metrics()
        assert (page.sum("epp_ratelimit_storage_away"), page.sum("epp_ratelimit_pending_charges")) == (1, 1)
        with redis(tmp_path, port):
            # What was charged meanwhile is booked; what the store forgot is its own affair.
            wait_for(lambda: service.metrics().sum("epp_ratelimit_pending_charges") == 0)
            wait_for(lambda: service.metrics().sum("epp_ratelimit_storage_away") == 0)
            assert ask.ask(of_user("alice", 0)).statuses[0].limit_remaining == 989
        assert not [line for line in service.lines if PASSWORD in line or "alice" in line]


def wait_for(done: Callable[[], bool]) -> None:
    """For what another process does in its own time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def failed_start(config: Path, *flags: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code, and the only complaint."""
    with serving(config, *flags, env=env, wait=False) as service:
        code = service.ended()
        assert "Traceback" not in "\n".join(service.lines)
        [complaint] = service.complaints()
        return code, complaint


def test_what_keeps_it_from_starting(config: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert failed_start(missing) == (
        1,
        f"{missing}: cannot be read: No such file or directory; give a readable file or folder",
    )
    code, said = failed_start(config, "--port=99999")
    assert (code, "allowed: 0 to 65535" in said) == (2, True)
    code, said = failed_start(config, f"--cert-path={tmp_path}")
    assert (code, "tls.crt" in said) == (1, True)
    code, said = failed_start(config, "--redis=ftp://user:secret@127.0.0.1/")
    assert (code, "give redis://" in said, "secret" in said) == (2, True, False)
    with serving(config) as service:
        code, said = failed_start(config, f"--port={service.port}")
        assert (code, "the port is taken" in said) == (1, True)
        code, said = failed_start(config, f"--metrics-port={service.pages_port}")
        assert (code, "--metrics-port" in said) == (1, True)
    config.write_text("domain: d\ndescriptors:\n- kee: a\n")
    code, said = failed_start(config)
    assert (code, said.startswith(f"{config}: line 3: unknown key 'kee'")) == (1, True)


def test_check_prints_the_rules_and_starts_nothing(config: Path) -> None:
    argv = [sys.executable, "-m", "epp", "ratelimit", "--config", str(config), "--check"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{DOMAIN}.route.rule-0-match-0: unit=HOUR requests_per_unit=1000")
