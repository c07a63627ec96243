# SPDX-License-Identifier: Apache-2.0
"""Files that change while the service runs: a good version is taken, a bad one is said once and the last good kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.client import chat, post
from tests.e2e.dialogue import grpcio_channel
from tests.e2e.stack import Stack, envoy, pods, serving


def config(profile: str) -> str:
    return (
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: active-request-scorer\n"
        f"schedulingProfiles:\n- name: {profile}\n  plugins:\n  - pluginRef: active-request-scorer\n"
    )


def entries(addresses: list[str]) -> str:
    places = [address.rpartition(":") for address in addresses]
    return json.dumps({"endpoints": [{"name": f"pod-{port}", "address": ip, "port": port} for ip, _, port in places]})


class Files:
    """The two files, and the service that follows them."""

    def __init__(self, folder: Path, running: Stack) -> None:
        self.config, self.endpoints = folder / "config.yaml", folder / "endpoints.json"
        self.running = running

    def ask(self, request_id: str) -> tuple[str, str]:
        """Send a request; the profile that chose, and the pod that answered."""
        answer = post(self.running.port, chat("hello"), {"x-request-id": request_id})
        assert answer.status == 200
        decision = self.running.epp.handled(request_id)["decision"]
        assert decision["address"] == answer.get("x-inference-pod")
        return decision["profiles"][0]["profile"], decision["address"]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with pods("127.0.0.1:0", "127.0.0.1:0") as served:
        (tmp_path / "config.yaml").write_text(config("first"))
        (tmp_path / "endpoints.json").write_text(entries(served.addresses[:1]))
        flags = (f"--config-file={tmp_path}/config.yaml", f"--endpoints-file={tmp_path}/endpoints.json")
        with serving(*flags) as epp, envoy(epp.port) as gateway:
            yield Files(tmp_path, Stack(epp, gateway, served))


@pytest.mark.envoy
def test_the_configuration(files: Files) -> None:
    epp = files.running.epp
    assert files.ask("a")[0] == "first"
    files.config.write_text(config("second").replace("active-request-scorer", "active-request-scoree", 1))
    bad = epp.say("configuration kept as it is; the changed one is wrong")
    assert bad["level"] == "error"
    assert "line 4: plugin type 'active-request-scoree' is not registered" in bad["msg"]
    assert files.ask("b")[0] == "first"
    files.config.write_text("plugins: [")
    epp.say("not YAML")
    assert files.ask("c")[0] == "first"
    files.config.unlink()
    epp.say("No such file")
    assert files.ask("d")[0] == "first"
    files.config.write_text(config("third"))
    epp.say("changed and is in use")
    assert files.ask("e")[0] == "third"
    complaints = [json.loads(line) for line in epp.complaints()]
    assert [c["level"] for c in complaints] == ["error", "error", "warn"]
    epp.settled()


@pytest.mark.envoy
def test_the_endpoints(files: Files) -> None:
    epp, (first, second) = files.running.epp, files.running.pods.addresses
    assert files.ask("a")[1] == first
    files.endpoints.write_text("endpoints: [")
    bad = epp.say("its last good state, 1 endpoints, is kept")
    assert bad["level"] == "warn"
    assert str(files.endpoints) in bad["msg"]
    assert files.ask("b")[1] == first
    files.endpoints.write_text(entries([second]))
    epp.say(f"endpoints file {files.endpoints}: 1 endpoints", len(epp.lines) - 1)
    assert files.ask("c")[1] == second
    files.endpoints.write_text('{"endpoints": []}')
    epp.say(f"endpoints file {files.endpoints}: 0 endpoints")
    answer = post(files.running.port, chat("anyone"))
    assert (answer.status, answer.get("x-llm-d-request-dropped-reason")) == (503, "rejected-no-endpoints")
    files.endpoints.write_text(entries([first, second]))
    epp.say(f"endpoints file {files.endpoints}: 2 endpoints")
    assert files.ask("d")[1] in (first, second)
    assert len(epp.complaints()) == 1
    epp.settled()


async def test_health_follows_the_endpoints(tmp_path: Path) -> None:
    """`readiness` alone depends on there being something to pick; the tutorial's probes ask the other names."""
    file = tmp_path / "endpoints.json"
    file.write_text('{"endpoints": []}')
    names = ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension")
    with serving(f"--endpoints-file={file}", "--config-text", config("p")) as epp:
        async with grpcio_channel(epp.health_port, None) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            statuses = {name: stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in names}
            first = {name: (await watch.read()).status for name, watch in statuses.items()}
            assert first == {**dict.fromkeys(names, 1), "readiness": 2}
            file.write_text(json.dumps({"endpoints": [{"name": "a", "address": "127.0.0.1", "port": "9"}]}))
            assert (await statuses["readiness"].read()).status == 1
            file.write_text('{"endpoints": []}')
            assert (await statuses["readiness"].read()).status == 2
