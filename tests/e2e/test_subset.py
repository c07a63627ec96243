# SPDX-License-Identifier: Apache-2.0
"""The subset hint: Envoy's filter metadata names the endpoints that may be chosen, as text or as a list."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Value

from tests.e2e.client import Answer, chat, post
from tests.e2e.stack import SEED_YAML, PodPart, Stack, connection_manager, envoy, pods, serving
from tests.ipv6 import has_ipv6

pytestmark = pytest.mark.envoy

TURNS = itertools.count()
NAMESPACE, KEY = "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset"


def hinted(document: dict[str, Any]) -> None:
    """A filter before the picker's turns test headers into metadata, and the picker is shown that namespace."""
    filters = connection_manager(document)["http_filters"]
    where = {"metadata_namespace": NAMESPACE, "key": KEY}
    rules = [
        {"header": "x-hint-text", "on_header_present": {**where, "type": "STRING"}},
        {"header": "x-hint-value", "on_header_present": {**where, "type": "PROTOBUF_VALUE", "encode": "BASE64"}},
    ]
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
    name = "envoy.filters.http.header_to_metadata"
    filters.insert(0, {"name": name, "typed_config": {"@type": kind, "request_rules": rules}})
    ext_proc = next(f for f in filters if f["name"] == "envoy.filters.http.ext_proc")["typed_config"]
    ext_proc["metadata_options"]["forwarding_namespaces"]["untyped"].append(NAMESPACE)


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    places = ["127.0.1.1:0", "127.0.1.1:0", "127.0.1.2:0", *(["[::1]:0"] if has_ipv6() else [])]
    with pods(*places) as served:
        flags = (f"--endpoints={','.join(served.addresses)}", "--config-text", SEED_YAML)
        with serving(*flags) as epp, envoy(epp.port, adapt=hinted) as gateway:
            yield Stack(epp, gateway, served)


def encoded(value: Value) -> dict[str, str]:
    return {"x-hint-value": base64.b64encode(value.SerializeToString()).decode()}


def as_list(*items: str) -> dict[str, str]:
    return encoded(Value(list_value=ListValue(values=[Value(string_value=item) for item in items])))


def send(running: Stack, headers: dict[str, str]) -> Answer:
    """A request like no other, so that no pod has its prefix."""
    return post(running.port, chat(f"turn {next(TURNS)}"), headers)


def chosen(running: Stack, headers: dict[str, str]) -> set[str]:
    """The pods of many requests with a hint."""
    answers = [send(running, headers) for _ in range(24)]
    assert {answer.status for answer in answers} == {200}
    return {answer.get("x-inference-pod") for answer in answers}


def test_without_a_hint_all_are_used(running: Stack) -> None:
    used = {answer.get("x-inference-pod") for answer in (send(running, {}) for _ in range(64))}
    assert used == set(running.pods.addresses)


def cases(pods: PodPart) -> list[tuple[dict[str, str], set[str]]]:
    """Hints, and the pods each leaves."""
    one, two, three, *six = pods.addresses
    found = [
        ({"x-hint-text": one}, {one}),
        ({"x-hint-text": f"{one},{three}"}, {one, three}),
        ({"x-hint-text": f" {one} , 127.0.1.2 "}, {one, three}),
        ({"x-hint-text": "127.0.1.1"}, {one, two}),
        ({"x-hint-text": f"10.9.9.9:1,{two}"}, {two}),
        (as_list(two), {two}),
        (as_list("127.0.1.2", one), {one, three}),
        (as_list(three, three), {three}),
    ]
    for address in six:
        host, _, port = address.rpartition(":")
        found += [
            ({"x-hint-text": address}, {address}),
            (as_list(address, one), {address, one}),
            (as_list("::1"), {address}),
            (as_list("[::1]"), {address}),
            (as_list(f"{host}:{port}"), {address}),
        ]
    return found


def test_hints(running: Stack) -> None:
    for headers, expected in cases(running.pods):
        assert chosen(running, headers) == expected, headers
    running.epp.settled()
    assert running.epp.complaints() == []


NOBODY = {
    "unknown": {"x-hint-text": "10.9.9.9:8000"},
    "comma": {"x-hint-text": ","},
    "unknown in a list": as_list("10.9.9.9"),
    "empty list": as_list(),
    "number": encoded(Value(number_value=7)),
    "bool": encoded(Value(bool_value=True)),
    "struct": encoded(Value(struct_value={})),
}


@pytest.mark.parametrize("headers", NOBODY.values(), ids=NOBODY)
def test_a_hint_that_leaves_nobody(running: Stack, headers: dict[str, str]) -> None:
    answer = send(running, headers)
    assert (answer.status, answer.get("x-llm-d-request-dropped-reason")) == (503, "rejected-no-endpoints")
    assert answer.body.startswith(b"inference error: ServiceUnavailable - failed to find endpoint candidates")
    running.epp.settled()
    assert running.epp.complaints() == []


def test_null_is_no_hint(running: Stack) -> None:
    assert send(running, encoded(Value(null_value=0))).status == 200


def test_the_filter_can_be_switched_off(running: Stack) -> None:
    one, two, *_ = running.pods.addresses
    flags = (f"--endpoints={two}", "--config-text", SEED_YAML, "--disable-endpoint-subset-filter")
    with serving(*flags) as epp, envoy(epp.port, adapt=hinted) as gateway:
        answer = post(gateway.port, chat("anyone"), {"x-hint-text": one})
        assert (answer.status, answer.get("x-inference-pod")) == (200, two)
