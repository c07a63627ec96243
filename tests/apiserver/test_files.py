# SPDX-License-Identifier: Apache-2.0
"""Files: the service account directory as kubelet mounts it, its rotation, kubeconfigs; makers; the command."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.apiserver.client import PODS, Client
from tests.apiserver.objects import (
    inference_model,
    not_ready,
    objective,
    pod,
    pool_v1,
    pool_v1alpha2,
    ready,
    restarted,
    rewrite,
)
from tests.apiserver.server import ApiServer
from tests.apiserver.tutorial import LABELS, POOL, SELECTOR, tutorial

ROOT = Path(__file__).parent.parent.parent


def test_the_service_account_directory(tmp_path: Path) -> None:
    with ApiServer(namespace="team-a", folder=tmp_path) as server:
        here = server.service_account
        assert sorted(path.name for path in here.iterdir() if not path.name.startswith("..")) == [
            "ca.crt",
            "namespace",
            "token",
        ]
        assert os.readlink(here / "token") == "..data/token"
        assert (here / "namespace").read_text() == "team-a"
        assert (here / "ca.crt").read_bytes() == server.ca_file.read_bytes()
        assert (here / "token").read_text() == server.token
        assert server.token.count(".") == 2


def test_a_rotated_token() -> None:
    with ApiServer() as server:
        old, folder = server.token, (server.service_account / "..data").resolve()
        fresh = server.rotate_token()
        assert (server.service_account / "token").read_text() == fresh != old
        assert (server.service_account / "..data").resolve() != folder
        with Client(server, old) as before, Client(server) as after:
            assert (before.get(PODS).code, after.get(PODS).code) == (401, 200)
        server.rotate_token(revoke=False)
        with Client(server, fresh) as before:
            assert before.get(PODS).code == 200


def test_kubeconfigs(tmp_path: Path) -> None:
    with ApiServer() as server:
        plain = yaml.safe_load(server.kubeconfig(tmp_path / "a").read_text())
        assert plain["clusters"][0]["cluster"] == {"certificate-authority": str(server.ca_file), "server": server.url}
        assert plain["users"][0]["user"] == {"token": server.token}
        assert plain["contexts"][0]["context"]["namespace"] == "kserve-test"
        files = yaml.safe_load(server.kubeconfig(tmp_path / "b", auth="token-file").read_text())
        assert files["users"][0]["user"] == {"tokenFile": str(server.service_account / "token")}
        inline = yaml.safe_load(server.kubeconfig(tmp_path / "c", auth="certificate", inline=True).read_text())
        ca = base64.b64decode(inline["clusters"][0]["cluster"]["certificate-authority-data"])
        assert ca == server.ca_file.read_bytes()
        assert set(inline["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_a_pod_is_as_large_as_a_real_one() -> None:
    body = pod("a-0", "10.0.0.1", LABELS, restart_count=2)
    assert 8_000 < len(orjson.dumps(body)) < 13_000
    assert body["status"]["podIPs"] == [{"ip": "10.0.0.1"}]
    assert body["status"]["containerStatuses"][0]["restartCount"] == 2
    assert {one["type"]: one["status"] for one in body["status"]["conditions"]}["Ready"] == "True"


def test_patches_of_a_pod() -> None:
    with ApiServer() as server:
        server.apply(pod("a", "10.0.0.1", LABELS, ready=False))

        def is_ready(change: dict[str, Any]) -> str:
            status = server.patch("pods", "kserve-test", "a", change)["status"]
            return str({one["type"]: one["status"] for one in status["conditions"]}["Ready"])

        assert (is_ready(ready()), is_ready(not_ready())) == ("True", "False")
        body = server.patch("pods", "kserve-test", "a", restarted(3))
        assert body["status"]["containerStatuses"][0]["restartCount"] == 3
        with pytest.raises(KeyError, match="is not there"):
            server.patch("pods", "kserve-test", "b", ready())


def test_makers_of_the_other_kinds() -> None:
    objects = [
        pool_v1("x", {"a": "b"}, ports=(8000, 8001)),
        pool_v1alpha2("x", {"a": "b"}),
        objective("o", "x", -1),
        rewrite("r", "x", [(("m",), {"m-v2": 90, "m-v1": 10}), ((), {"any": None})]),
        inference_model("i", "x", "m", targets={"m-lora": 100}, created="2025-01-01T00:00:00Z"),
    ]
    with ApiServer() as server:
        server.apply(objects)
        (kept,) = server.objects("inferencemodels")
        assert kept["metadata"]["creationTimestamp"] == "2025-01-01T00:00:00Z"
        assert server.objects("inferencepools")[0]["spec"]["targetPorts"] == [{"number": 8000}, {"number": 8001}]
        assert server.objects("inferencepools.inference.networking.x-k8s.io")[0]["spec"]["selector"] == {"a": "b"}
        assert server.objects("inferenceobjectives.llm-d.ai")[0]["spec"]["priority"] == -1
        rules = server.objects("inferencemodelrewrites.llm-d.ai")[0]["spec"]["rules"]
        assert rules[0]["targets"] == [{"modelRewrite": "m-v2", "weight": 90}, {"modelRewrite": "m-v1", "weight": 10}]
        assert rules[1] == {"targets": [{"modelRewrite": "any"}]}


@pytest.mark.parametrize(
    ("release", "kinds"),
    [
        ("v0.16", ["InferencePool", "InferenceModel"]),
        ("v0.17", ["InferencePool", "InferencePool"]),
        ("v0.20", ["InferencePool", "InferencePool"]),
    ],
)
def test_the_tutorials_objects(release: str, kinds: list[str]) -> None:
    objects = tutorial(release, 2)
    assert [body["kind"] for body in objects] == [*kinds, "Pod", "Pod"]
    assert objects[0]["metadata"]["name"] == POOL
    assert SELECTOR.items() <= objects[-1]["metadata"]["labels"].items()
    assert [body["status"]["podIP"] for body in objects[-2:]] == ["127.0.1.1", "127.0.1.2"]
    with pytest.raises(ValueError, match="v9"):
        tutorial("v9")


@pytest.mark.parametrize("way", ["stdin", "interrupt", "terminate"])
def test_by_hand(tmp_path: Path, way: str) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump(pool_v1("mine", {"a": "b"})))
    argv = [
        sys.executable,
        "-m",
        "tests.apiserver",
        "--dir",
        str(tmp_path / "d"),
        "--apply",
        str(file),
        "--tutorial",
        "v0.18",
    ]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = json.loads(process.stdout.readline())
        assert line["url"].startswith("https://127.0.0.1:")
        assert line["dir"] == str(tmp_path / "d")
        assert (tmp_path / "d" / "serviceaccount" / "token").exists()
        if way == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGINT if way == "interrupt" else signal.SIGTERM)
        assert process.wait(30) == 0
