# SPDX-License-Identifier: Apache-2.0
"""Where the way to the API server is looked for, and what is said when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.contract.errors import StartError
from epp.kube.access import find_access
from epp.kube.credentials import REREAD_S, Credential, TokenFile

KUBECONFIG = """
clusters: [{name: c, cluster: {server: "https://SERVER:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def write(path: Path, server: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(KUBECONFIG.replace("SERVER", server))
    return path


def account(path: Path, token: str = "secret", namespace: str | None = "mine") -> Path:
    path.mkdir()
    (path / "token").write_text(token)
    if namespace is not None:
        (path / "namespace").write_text(namespace)
    return path


IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_order(tmp_path: Path) -> None:
    service_account = account(tmp_path / "account")
    flag, named = write(tmp_path / "flag", "flag"), write(tmp_path / "named", "named")
    write(tmp_path / ".kube" / "config", "home")
    environ = {"HOME": str(tmp_path), "KUBECONFIG": str(named), **IN_CLUSTER}

    def server(kubeconfig: Path | None = None) -> str | None:
        access = find_access(environ, kubeconfig, service_account=service_account)
        return access.server if access is not None else None

    assert server(flag) == "https://flag:6443"
    assert server() == "https://named:6443"
    del environ["KUBECONFIG"]
    assert server() == "https://10.96.0.1:443"
    del environ["KUBERNETES_SERVICE_HOST"]
    assert server() == "https://home:6443"
    del environ["HOME"]
    assert server() is None
    environ["HOME"] = str(tmp_path / "account")
    assert server() is None


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("10.0.0.1", "https://10.0.0.1:443"),
        ("fd00::1", "https://[fd00::1]:443"),
        ("[fd00::1]", "https://[fd00::1]:443"),
    ],
)
async def test_in_a_pod(tmp_path: Path, host: str, server: str) -> None:
    environ = IN_CLUSTER | {"KUBERNETES_SERVICE_HOST": host}
    access = find_access(environ, service_account=account(tmp_path / "account"))
    assert access is not None
    assert (access.server, access.namespace) == (server, "mine")
    assert await access.credentials.current() == Credential("secret")
    assert "secret" not in repr(access)


def test_in_a_pod_without_a_namespace_file(tmp_path: Path) -> None:
    access = find_access(IN_CLUSTER, service_account=account(tmp_path / "account", namespace=None))
    assert access is not None
    assert access.namespace == "default"


def test_in_a_pod_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="automountServiceAccountToken: true"):
        find_access(IN_CLUSTER, service_account=tmp_path)
    with pytest.raises(StartError, match="holds no token"):
        find_access(IN_CLUSTER, service_account=account(tmp_path / "account", token=" \n"))


def test_in_a_pod_with_a_broken_port_or_authority(tmp_path: Path) -> None:
    folder = account(tmp_path / "account")
    with pytest.raises(StartError, match=r'KUBERNETES_SERVICE_PORT is "tcp://10\.0\.0\.1:443"'):
        find_access(IN_CLUSTER | {"KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:443"}, service_account=folder)
    for content in ("nothing", ""):
        (folder / "ca.crt").write_text(content)
        with pytest.raises(StartError, match=r"ca.crt cannot be used .*; it must hold certificates in PEM"):
            find_access(IN_CLUSTER, service_account=folder)


async def test_a_token_file_is_read_every_minute_and_when_refused(tmp_path: Path) -> None:
    path, now_s = tmp_path / "token", 1000.0
    path.write_text("one\n")
    source = TokenFile(path, clock=lambda: now_s)
    one = await source.current()
    assert one.token == "one"
    path.write_text("two")
    now_s += REREAD_S - 1
    assert await source.current() == one
    now_s += 1
    two = await source.current()
    assert two.token == "two"
    path.write_text("three")
    # Whoever was refused with an older one need not look again.
    source.refused(one)
    assert await source.current() == two
    source.refused(two)
    assert (await source.current()).token == "three"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"a\x00b"])
async def test_a_token_file_that_is_half_written_leaves_the_last_token(tmp_path: Path, content: bytes | None) -> None:
    path, now_s = tmp_path / "token", 0.0
    path.write_text("good")
    source = TokenFile(path, clock=lambda: now_s)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    now_s += REREAD_S
    assert (await source.current()).token == "good"
