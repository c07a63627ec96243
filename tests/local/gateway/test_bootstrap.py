# SPDX-License-Identifier: Apache-2.0
"""What the bootstrap says, and what is written where."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.config.bootstrap import v3 as envoy

from epp.contract.errors import StartError
from epp.local.gateway.bootstrap import as_json, bootstrap, write
from epp.local.gateway.clientheaders import REMOVED, REMOVED_PREFIXES
from epp.local.gateway.places import Address, address
from epp.local.gateway.secrets import SecretFiles
from epp.local.gateway.start import envoy_argv
from epp.local.gateway.upstreamtls import system_roots
from epp.manifests.limits import Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.topology import ApiKey, Backend, Listener, Pool, Route, Secret, Target, Tls, Topology
from tests.local.gateway.build import places_of
from tests.local.gateway.standins import one_listener, rule

KEY = "sk-never-shown"


def with_key(text: str = KEY) -> Topology:
    backend = Backend("d/b", key=ApiKey(Secret(text)))
    return one_listener(Route("d/r", ("d/gw",), (rule("d/r/rule/0", "m", Target("d/b", False)),)), backends=(backend,))


def built(topology: Topology) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(as_json(bootstrap(topology, places_of(topology), SecretFiles(Path("/run/keys")))))
    return made


def routes(topology: Topology, host: int = 0) -> list[dict[str, Any]]:
    manager = built(topology)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    found: list[dict[str, Any]] = manager["route_config"]["virtual_hosts"][host]["routes"]
    return found


def test_files_are_their_owners_alone_and_the_key_is_in_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    path = write(directory, with_key(), places_of(with_key()))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (directory, *directory.iterdir())}
    assert modes == {"run": 0o700, "envoy.json": 0o600, "backend_d_b.key": 0o600}
    assert (directory / "backend_d_b.key").read_text() == KEY
    assert KEY not in path.read_text()
    assert KEY not in repr(with_key())
    argv = envoy_argv(Path("/bin/envoy"), path)
    assert argv[:5] == ["/bin/envoy", "--config-path", str(path), "--concurrency", "1"]


def test_files_of_an_earlier_run_are_taken_over_and_links_are_not_followed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "envoy.json").write_text("old")
    (tmp_path / "envoy.json").chmod(0o644)
    write(tmp_path, with_key(), places_of(with_key()))
    assert stat.S_IMODE((tmp_path / "envoy.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    (tmp_path / "backend_d_b.key").unlink()
    (tmp_path / "backend_d_b.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=r"cannot write .*backend_d_b\.key"):
        write(tmp_path, with_key(), places_of(with_key()))


@pytest.mark.parametrize("text", ["", "two\nlines", "back ", "naïve", "tab\there"])
def test_a_key_that_no_header_can_carry_is_told_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartError, match="the API key for backend/d/b") as raised:
        write(tmp_path, with_key(text), places_of(with_key()))
    assert not text or text not in str(raised.value)


def test_the_json_says_what_the_message_says() -> None:
    topology = with_key()
    message = bootstrap(topology, places_of(topology), SecretFiles(Path("/run/keys")))
    assert envoy.Bootstrap.from_dict(json.loads(as_json(message))) == message
    assert '"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"' in as_json(
        message
    )


def test_what_is_not_asked_for_is_not_there() -> None:
    made = as_json(bootstrap(with_key(), places_of(with_key()), SecretFiles(Path("/run/keys"))))
    assert "ratelimit" not in made
    assert "endpointpicker" not in made
    assert "access_log" not in made


def test_the_admin_interface_and_every_listener_are_where_places_says() -> None:
    listeners = (Listener("d/a", "http", 80), Listener("d/b", "http", 8080), Listener("d/c", "http", 80))
    made = built(Topology(listeners, ()))
    assert made["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 20001}
    ports = [listener["address"]["socket_address"]["port_value"] for listener in made["static_resources"]["listeners"]]
    assert ports == [18080, 18081]


def test_a_route_on_two_listeners_of_one_port_is_there_once() -> None:
    one = Route("d/r", ("d/a", "d/b"), (rule("d/r/rule/0", "m", Target("d/b", False)),))
    listeners = (Listener("d/a", "http", 80), Listener("d/b", "http", 80))
    topology = Topology(listeners, (one,), backends=(Backend("d/b"),))
    assert [route["name"] for route in routes(topology)] == ["d/r/rule/0", "no-route"]


def test_a_rule_without_a_target_answers_500() -> None:
    one = Route("d/r", ("d/gw",), (rule("d/r/rule/0", "m", Target("d/b", False, 0)),))
    found = routes(one_listener(one, backends=(Backend("d/b"),)))
    assert [route["direct_response"]["status"] for route in found] == [500, 404]


@pytest.mark.parametrize(("timeout_s", "said"), [(None, "60s"), (0.0, "0s"), (0.25, "0.250s"), (120.0, "120s")])
def test_timeouts(timeout_s: float | None, said: str) -> None:
    one = Route("d/r", ("d/gw",), (rule("d/r/rule/0", "m", Target("d/b", False), timeout_s=timeout_s),))
    found = routes(one_listener(one, backends=(Backend("d/b"),)))
    assert (found[0]["route"]["timeout"], found[0]["route"]["idle_timeout"]) == (said, "0s")


def test_shares_are_cumulative_and_the_last_takes_the_rest() -> None:
    targets = (Target("d/a", False, 1), Target("d/b", False, 0), Target("d/p", True, 2), Target("d/c", False, 1))
    one = Route("d/r", ("d/gw",), (rule("d/r/rule/0", "m", *targets),))
    backends = tuple(Backend(f"d/{name}") for name in "abc")
    found = routes(one_listener(one, backends=backends, pools=(Pool("d/p"),)))[:-1]
    shares = [
        (
            route["route"]["cluster"],
            route["match"].get("runtime_fraction", {}).get("default_value", {}).get("numerator"),
        )
        for route in found
    ]
    assert shares == [("backend/d/a", 250_000), ("pool/d/p", 750_000), ("backend/d/c", None)]


@pytest.mark.parametrize("match", [Match.EXACT, Match.REGEX])
def test_booking_by_the_value_of_a_header_that_is_overwritten_is_an_error(match: Match) -> None:
    rules = tuple(
        LimitRule((Selector("k", "authorization", kind, "Bearer vip"),), 9, Unit.HOUR, Charge(0), booked)
        for kind, booked in ((match, None), (Match.DISTINCT, Charge(1)), (match, Charge(1)))
    )
    for number, wrong in enumerate((False, False, True)):
        plain = with_key()
        policy = LimitPolicy("d/p", rules[: number + 1], gateways=("d/gw",))
        topology = Topology(plain.listeners, plain.routes, backends=plain.backends, limits=(policy,))
        if not wrong:
            assert routes(topology)
            continue
        with pytest.raises(
            StartError, match="d/p books tokens by the value of the header authorization, which the API"
        ):
            routes(topology)


def test_simulated_backends_speak_plaintext_whatever_their_policy() -> None:
    backends = (Backend("d/a", tls=Tls("a.example", "PEM")), Backend("d/b", endpoints=("b.example:443",)))
    clusters = built(Topology((), (), backends=backends))["static_resources"]["clusters"]
    assert {one["name"]: one.get("type", "STATIC") for one in clusters} == {
        "gateway": "STATIC",
        "backend/d/a": "STATIC",
        "backend/d/b": "STRICT_DNS",
    }
    assert not [one for one in clusters if "transport_socket" in one]


def test_the_systems_authorities_or_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="install the package ca-certificates"):
        system_roots([tmp_path / "none.pem"])
    bundle = tmp_path / "bundle.crt"
    bundle.touch()
    assert system_roots([tmp_path / "none.pem", bundle]) == bundle


def test_who_a_client_is_stays_the_clients_word() -> None:
    for kept in ("x-user-id", "authorization", "x-request-id", "traceparent", "x-session-id"):
        assert kept not in REMOVED
        assert not kept.startswith(tuple(REMOVED_PREFIXES))
    assert all(name == name.lower() for name in (*REMOVED, *REMOVED_PREFIXES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:8000", Address("10.0.0.1", 8000)),
        ("[fd00::1]:8000", Address("fd00::1", 8000)),
        ("api.example.com:443", Address("api.example.com", 443)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert address(text) == expected
    assert str(expected) == text
    assert expected.is_literal is ("example" not in text)


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:0", "host:65536", "host:x", "fd00::1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        address(text)
