# SPDX-License-Identifier: Apache-2.0
"""The tutorial's objects in a cluster, KServe's command lines and roles of every release, real Envoy: 200."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import split
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.transport.selfsigned import self_signed
from tests.apiserver.kinds import GIE, GIE_X, LLM_D
from tests.apiserver.roles import AUTH_DELEGATOR, CONFORMANCE, KSERVE_ROLES
from tests.cluster.stack import MODEL, NAMESPACE, POOL, Cluster, cluster, found
from tests.e2e.client import Answer, post
from tests.e2e.stack import SEED_YAML, Epp, envoy, serving

pytestmark = pytest.mark.envoy

PICKER = "envoy.service.ext_proc.v3.ExternalProcessor"
BODY = (
    b'{"model": "%s", "messages": [{"role": "system", "content": "You are a poet."},'
    b' {"role": "user", "content": "Write a poem about clouds."}]}' % MODEL.encode()
)
# What follows each release's own flags. Ports are ours, as several runs share this machine.
PORTS = {"9002": "0", "9003": "0"}
OLD = f"--poolName {POOL} --poolNamespace {NAMESPACE} --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003"
NEW = f"--pool-name {POOL} --pool-namespace {NAMESPACE} --zap-encoder json --grpc-port 9002 --grpc-health-port 9003"
TLS = "--enable-cert-reload=true --secure-serving=true --model-server-metrics-scheme=http --cert-path=CERTS"
SEED = f"{OLD} --secureServing --certPath CERTS --configFile CONFIG"
ARGVS: dict[str, tuple[str, Sequence[str]]] = {
    "the tutorial": ("v0.16", split(SEED)),
    "v0.16": ("v0.16", [*split(OLD), "--configText", SEED_YAML]),
    "v0.17": (
        "v0.17",
        [*split(NEW), "--kv-cache-usage-percentage-metric", "vllm:kv_cache_usage_perc", "--config-text", SEED_YAML],
    ),
    "v0.17, replicas": ("v0.17", [*split(NEW), "--ha-enable-leader-election", "--config-text", SEED_YAML]),
    "v0.18, TLS": ("v0.18", [*split(f"{NEW} {TLS}"), "--config-text", SEED_YAML]),
    "v0.18, no TLS": ("v0.18", [*split(NEW), "", "", "", "", "--config-text", SEED_YAML]),
    "v0.20, tracing": ("v0.20", [*split(f"{NEW} {TLS}"), "--config-text", SEED_YAML, "--tracing=true"]),
    "v0.20, the tutorial's arguments on its command": ("v0.20", [*split(NEW), "", "", "", "", *split(SEED)]),
}


def place(argv: Sequence[str], folder: Path) -> list[str]:
    """`argv` with the files it names."""
    certs, config = folder / "certs", folder / "endpoint-picker-config.yaml"
    certs.mkdir()
    for name, content in zip(("tls.crt", "tls.key"), self_signed(), strict=True):
        (certs / name).write_bytes(content)
    config.write_text(SEED_YAML)
    here = {**PORTS, "CERTS": str(certs), "CONFIG": str(config), "--cert-path=CERTS": f"--cert-path={certs}"}
    return [here.get(word, word) for word in argv]


def health(epp: Epp, name: str) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{epp.health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status)


def objects(made: Cluster, release: str) -> None:
    """What that release of KServe installs, makes, and permits."""
    rules = made.server.rules
    if release == "v0.16":
        rules.uninstall(GIE)
    if release in ("v0.16", "v0.17"):
        rules.uninstall(LLM_D)
        rules.uninstall(GIE_X, "v1alpha2", "inferencemodelrewrites")
    if release == "v0.16":
        rules.uninstall(GIE_X, "v1alpha2", "inferenceobjectives")
        made.pools(made.v1alpha2(), made.model())
    else:
        made.pools()
    rules.allow_only(KSERVE_ROLES[release], cluster=AUTH_DELEGATOR)


@pytest.mark.parametrize("name", ARGVS)
def test_kserves_command_line_and_role_route_the_tutorials_request(name: str, tmp_path: Path) -> None:
    release, argv = ARGVS[name]
    with cluster(tmp_path) as made:
        objects(made, release)
        made.add(4)
        with serving(*place(argv, tmp_path), env=made.environ()) as epp, envoy(epp.port) as gateway:
            found(epp, 4)
            seen = {asked(gateway.port).get("x-inference-pod") for _ in range(3)}
            assert len(seen) == 1
            assert [health(epp, probe) for probe in ("liveness", "readiness", PICKER, "")] == [1] * 4
            complaints = [line for line in epp.complaints() if "no effect" not in line]
            assert complaints == []
        # Nothing was asked that KServe's role does not grant, but for the groups that are preferred where they may be
        # read, and no Event was made.
        preferred = ("inference.networking.k8s.io", "llm-d.ai")
        assert [r for r in made.server.requests if r.code in (401, 403) and r.group not in preferred] == []
        assert made.server.asked("create", "events") == []


def asked(port: int) -> Answer:
    answer = post(port, BODY, {"x-user-id": "user123"})
    assert answer.status == 200, answer.body
    return answer


def test_the_tutorials_log_line_names_the_pod(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        objects(made, "v0.16")
        made.add(1)
        with serving(*place(split(SEED), tmp_path), env=made.environ()) as epp, envoy(epp.port) as gateway:
            found(epp, 1)
            answer = post(gateway.port, BODY, {"x-request-id": "clouds"})
            assert answer.status == 200
            [name], [ip] = made.ips, made.ips.values()
            endpoint: Any = epp.handled("clouds")["endpoint"]
            assert endpoint.startswith(f"{{NamespacedName:{NAMESPACE}/{name} Address:{ip} Labels:map[")


def test_the_conformance_fixtures_rights_are_enough(tmp_path: Path) -> None:
    with cluster(tmp_path) as made:
        made.pools(made.v1())
        made.server.rules.allow_only(CONFORMANCE)
        made.add(3)
        argv = [PORTS.get(word, word) for word in split(NEW)]
        with serving(*argv, env=made.environ()) as epp, envoy(epp.port) as gateway:
            found(epp, 3)
            ip = sorted(made.ips.values())[1]
            for _ in range(5):
                answer = post(gateway.port, BODY, {"test-epp-endpoint-selection": ip})
                assert answer.get("x-inference-pod") == f"{ip}:{made.port}"
            assert health(epp, "inference-extension") == 1
