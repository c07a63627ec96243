# SPDX-License-Identifier: Apache-2.0
"""A real kube-apiserver and a real etcd on loopback, for one test. Both are looked for on the PATH.

    apt-get install etcd-server
    git clone --depth 1 --branch v1.34.1 https://github.com/kubernetes/kubernetes && make -C kubernetes WHAT=cmd/kube-apiserver

Nothing else of Kubernetes runs: pods are objects whose status is written by the test, as a kubelet writes it. The CRDs
are those of `CRD_DIR`, if that names a folder of YAML files, else some that permit every field.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from epp.local.ports import free_port
from tests.apiserver.kinds import GIE, GIE_X
from tests.apiserver.objects import pod

ADMIN, PICKER, SCRAPER = "admin-token-0001", "picker-token-002", "scraper-token-03"
NAMESPACE = "kserve-test"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:picker"
RBAC = "rbac.authorization.k8s.io"
PATIENCE_S = 60.0
_TOKENS = f"""\
{ADMIN},admin,1,"system:masters"
{PICKER},{ACCOUNT},2,"system:serviceaccounts,system:serviceaccounts:{NAMESPACE}"
{SCRAPER},scraper,3
"""


class Real:
    """Both processes. `stop_api` and `start_api` are an outage."""

    def __init__(self, folder: Path, parts: contextlib.ExitStack) -> None:
        self._folder = folder
        self._parts = parts
        rng = random.Random()
        self.port = free_port(["127.0.0.1"], None, rng)
        self._etcd = f"http://127.0.0.1:{free_port(['127.0.0.1'], None, rng)}"
        peers = f"http://127.0.0.1:{free_port(['127.0.0.1'], None, rng)}"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (folder / "sa.key").write_bytes(key)
        (folder / "tokens.csv").write_text(_TOKENS)
        urls = ["--listen-client-urls", self._etcd, "--advertise-client-urls", self._etcd]
        self._run("etcd", "--data-dir", str(folder / "etcd"), *urls, "--listen-peer-urls", peers)
        self.start_api()

    def start_api(self) -> None:
        """Start it, and wait until it is ready."""
        folder = self._folder
        self._api = self._run(
            *("kube-apiserver", "--etcd-servers", self._etcd, "--secure-port", str(self.port)),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--cert-dir", str(folder / "certs")),
            *("--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC"),
            *("--service-account-issuer", "https://tests", "--service-account-key-file", str(folder / "sa.key")),
            *("--service-account-signing-key-file", str(folder / "sa.key")),
            *("--disable-admission-plugins", "ServiceAccount", "--service-cluster-ip-range", "10.0.0.0/24"),
        )
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                if self.request("GET", "/readyz")[0] == 200:
                    return
            assert self._api.poll() is None, (folder / "kube-apiserver.log").read_text()[-3000:]
            assert time.monotonic() < deadline_s, "kube-apiserver does not become ready"
            time.sleep(0.1)

    def stop_api(self) -> None:
        """End it without a word to anybody."""
        self._api.kill()
        self._api.wait()

    def _run(self, *argv: str) -> subprocess.Popen[bytes]:
        log = self._parts.enter_context((self._folder / f"{argv[0]}.log").open("ab"))
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self._parts.callback(process.wait)
        self._parts.callback(process.kill)
        return process

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, bytes]:
        """As an administrator."""
        data = json.dumps(body).encode() if body is not None else None
        fields = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data, fields, method=method)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def must(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """`request` that succeeds; what was answered."""
        status, answer = self.request(method, path, body, kind)
        assert status < 300, (method, path, answer)
        return json.loads(answer)

    def kubeconfig(self) -> Path:
        """The picker's."""
        path = self._folder / "kubeconfig"
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self._folder / "certs" / "apiserver.crt"),
        }
        document = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": PICKER}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def prepare(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """The namespace, the CRDs, and rights: `rules` for the picker, the metrics page for the scraper."""
        self.must("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for definition in _definitions():
            self.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        root = f"/apis/{RBAC}/v1"
        self.must(
            "POST", f"{root}/namespaces/{NAMESPACE}/roles", {"metadata": {"name": "picker"}, "rules": list(rules)}
        )
        self.must("POST", f"{root}/namespaces/{NAMESPACE}/rolebindings", _binding("picker", "Role", "picker", ACCOUNT))
        review = _binding("review", "ClusterRole", "system:auth-delegator", ACCOUNT)
        self.must("POST", f"{root}/clusterrolebindings", review)
        metrics = {"metadata": {"name": "metrics"}, "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}
        self.must("POST", f"{root}/clusterroles", metrics)
        self.must("POST", f"{root}/clusterrolebindings", _binding("metrics", "ClusterRole", "metrics", "scraper"))

    def make(self, body: dict[str, Any]) -> None:
        """Make an object of the test's makers, without what the server fills in."""
        group, plural = body["apiVersion"], body["kind"].lower() + "s"
        body = {**body, "metadata": {key: body["metadata"][key] for key in ("name", "namespace")}}
        body.pop("status", None)
        deadline_s = time.monotonic() + PATIENCE_S
        while self.request("POST", f"/apis/{group}/namespaces/{NAMESPACE}/{plural}", body)[0] == 404:
            assert time.monotonic() < deadline_s, f"{plural} are not served"  # A new CRD needs a moment.
            time.sleep(0.1)

    def add_pod(self, name: str, ip: str, labels: Mapping[str, str], port: int) -> None:
        """A pod that is Ready."""
        spec = {"containers": [{"name": "main", "image": "vllm", "ports": [{"containerPort": port}]}], "nodeName": "n"}
        body = {"metadata": {"name": name, "labels": dict(labels)}, "spec": spec}
        self.must("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
        self.report(name, ip, labels)

    def report(self, name: str, ip: str, labels: Mapping[str, str], *, ready: bool = True, restarts: int = 0) -> None:
        """What a kubelet says of a pod."""
        status = pod(name, ip, labels, ready=ready, restart_count=restarts)["status"]
        kept = {key: status[key] for key in ("phase", "podIP", "podIPs", "conditions", "containerStatuses")}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/status"
        self.must("PATCH", path, {"status": kept}, "application/merge-patch+json")


def _binding(name: str, kind: str, role: str, user: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }


def _definitions() -> Iterator[dict[str, Any]]:
    given = os.environ.get("CRD_DIR")
    if given:
        for file in sorted(Path(given).glob("*.yaml")):
            yield yaml.safe_load(file.read_text())
        return
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    for group, version, kind in ((GIE, "v1", "InferencePool"), (GIE_X, "v1alpha2", "InferenceObjective")):
        plural = kind.lower() + "s"
        yield {
            # The community's own approval, which the server asks for in groups of its.
            "metadata": {
                "name": f"{plural}.{group}",
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
            },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [{"name": version, "served": True, "storage": True, "schema": anything}],
            },
        }


@contextlib.contextmanager
def real(folder: Path) -> Iterator[Real]:
    """Both, started; skips the test where they are not installed."""
    for program in ("etcd", "kube-apiserver"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} on the PATH; tests/cluster/real.py says how to get it")
    with contextlib.ExitStack() as parts:
        yield Real(folder, parts)
