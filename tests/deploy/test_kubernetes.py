# SPDX-License-Identifier: Apache-2.0
"""The manifests fit together and fit the program: arguments parse, ports and probes are those it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from epp.service.flags.parsing import parse
from epp.transport.health import LIVENESS, READINESS

MANIFESTS = Path(__file__).parents[2] / "deploy"


def manifest(file: str, kind: str) -> dict[str, Any]:
    found = [m for m in yaml.safe_load_all((MANIFESTS / file).read_text()) if m["kind"] == kind]
    assert len(found) == 1
    made: dict[str, Any] = found[0]
    return made


def test_the_arguments_and_ports_are_the_programs() -> None:
    (container,) = manifest("kubernetes/epp.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {"NAMESPACE": "default", "POD_NAME": "my-pool-epp-1-2"}
    options = parse(container["args"], environ)
    assert not options.without_effect
    assert not options.warnings
    assert (options.pool_name, options.pool_namespace) == ("my-pool", "default")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": options.grpc_port,
        "grpc-health": options.grpc_health_port,
        "metrics": options.metrics_port,
    }
    probes = (container["livenessProbe"]["grpc"], container["readinessProbe"]["grpc"])
    assert probes == (
        {"port": options.grpc_health_port, "service": LIVENESS},
        {"port": options.grpc_health_port, "service": READINESS},
    )


def test_the_grace_period_holds_a_drain() -> None:
    spec = manifest("kubernetes/epp.yaml", "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > parse([], {}).drain_timeout_s + 60


def test_the_service_selects_the_pods_and_the_account_is_bound() -> None:
    service, deployment = manifest("kubernetes/epp.yaml", "Service"), manifest("kubernetes/epp.yaml", "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    account = manifest("kubernetes/epp.yaml", "ServiceAccount")["metadata"]["name"]
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        assert [s["name"] for s in manifest("kubernetes/epp.yaml", kind)["subjects"]] == [account]


def test_kserve_gets_another_image_and_nothing_else() -> None:
    template = manifest("kserve/scheduler-image.yaml", "LLMInferenceServiceConfig")["spec"]["router"]["scheduler"]
    (container,) = template["template"]["containers"]
    assert container.keys() == {"name", "image"}
    assert container["name"] == "main"
