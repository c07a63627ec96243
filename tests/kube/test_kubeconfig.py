# SPDX-License-Identifier: Apache-2.0
"""kubeconfig files: what they may say, how several are one, and what is refused by name."""

from __future__ import annotations

import base64
import json
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.contract.errors import StartError
from epp.kube.access import Access, find_access
from epp.kube.credentials import Credential
from epp.kube.errors import Unauthorized
from epp.kube.execplugin import Command, ExecPlugin


def config(cluster: Any = None, user: Any = None, context: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://s:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "current-context": "x",
    } | more


def read(folder: Path, *contents: Any, environ: dict[str, str] | None = None) -> Access:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"config{number}"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        paths.append(str(path))
    access = find_access({"KUBECONFIG": ":".join(paths), **(environ or {})})
    assert access is not None
    return access


async def token(access: Access) -> str:
    return (await access.credentials.current()).token


async def test_the_current_context(tmp_path: Path) -> None:
    access = read(tmp_path, config(user={"token": "t"}, context={"namespace": "n"}))
    assert (access.server, access.namespace, await token(access)) == ("https://s:6443", "n", "t")
    assert "config0" in access.origin


def test_what_may_be_null(tmp_path: Path) -> None:
    content = config({"certificate-authority": None}, None, {"namespace": None}, preferences=None)
    content["users"][0]["user"] = None
    assert read(tmp_path, content).namespace == "default"


def test_plain_http_and_a_slash_at_the_end(tmp_path: Path) -> None:
    access = read(tmp_path, config({"server": "http://[::1]:8001/prefix/"}))
    assert (access.server, access.tls) == ("http://[::1]:8001/prefix", None)


async def test_several_files_are_one_and_the_first_wins(tmp_path: Path) -> None:
    first = {"current-context": "x", "users": [{"name": "u", "user": {"token": "first"}}]}
    second = config(user={"token": "second"}, **{"current-context": "other"})
    access = read(tmp_path, first, second)
    assert (access.server, await token(access)) == ("https://s:6443", "first")


async def test_files_that_are_not_there_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text(yaml.safe_dump(config()))
    assert find_access({"KUBECONFIG": f"{tmp_path}/no:{path}:"}) is not None
    with pytest.raises(StartError, match="is not there"):
        find_access({"KUBECONFIG": f"{tmp_path}/no"})
    with pytest.raises(StartError, match="is not there"):
        find_access({}, tmp_path / "no")


async def test_a_token_file_beats_a_token_and_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "tok").write_text("filed")
    assert await token(read(tmp_path, config(user={"tokenFile": "tok", "token": "t"}))) == "filed"
    assert await token(read(tmp_path, config(user={"tokenFile": "no", "token": "t"}))) == "t"
    with pytest.raises(StartError, match="holds no token"):
        read(tmp_path, config(user={"tokenFile": "no"}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", "is not YAML, see line 2"),
        ("- a", "must be a mapping"),
        ("", "has no current-context"),
        ("\x00", "is not YAML"),
        (config(clusters={}), "has no"),
        (config(clusters={"name": "c"}), "clusters must be a list"),
        (config(users=["u"]), "every one of users must be a mapping with a name"),
        (config(context={"cluster": "z"}), 'clusters has no "z"; there is: c'),
        (config(context={"user": "z"}), 'users has no "z"; there is: u'),
        (config(**{"current-context": "z"}), 'contexts has no "z"; there is: x'),
        (config({"server": "s:6443"}), 'server is "s:6443", which must begin with https://'),
        (config({"server": "https://127.0.0.1:99999"}), "which is no https://HOST:PORT"),
        (config({"server": "https://a b:6443"}), "which is no https://HOST:PORT"),
        (config({"server": "https://:6443"}), "which is no https://HOST:PORT"),
        (config(user={"token": "a\nb"}), "token has line breaks"),
        (config({"server": ["s"]}), r'cluster "c": Expected `str`, got `array` - at `\$.server`'),
        (config({"proxy-url": "http://p"}), "proxy-url is not supported"),
        (config({"certificate-authority-data": "*"}), "is not base64"),
        (config({"certificate-authority": "ca.crt"}), "ca.crt cannot be used .*No such file"),
        (config({"certificate-authority": "a", "insecure-skip-tls-verify": True}), "exclude each other"),
        (config(user={"auth-provider": {"name": "gcp"}}), "auth-provider is not supported; use an exec plugin"),
        (config(user={"username": "me", "password": "p"}), "username is not supported"),
        (config(user={"as": "root"}), "as is not supported"),
        (config(user={"client-certificate": "a"}), "of use only together"),
        (config(user={"client-certificate": "a", "client-key": "b"}), "No such file"),
        (
            config(user={"client-certificate-data": "YQ==", "client-key-data": "YQ=="}),
            "the data given .* cannot be used",
        ),
        (config(user={"exec": {"command": "x"}}), 'exec apiVersion "" is not supported'),
        (config(user={"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}), "v1alpha1"),
        (
            config(
                user={
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "x",
                        "interactiveMode": "Always",
                    }
                }
            ),
            "interactiveMode Always is not supported",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(StartError, match=told) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_secrets_are_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        read(tmp_path, "users:\n- token: verysecret\n  x: [verysecret")
    assert "verysecret" not in str(caught.value)


PRINT = """#!{python}
import json, os, sys
count = os.path.join(os.path.dirname(sys.argv[0]), "count")
runs = len(open(count).read()) + 1 if os.path.exists(count) else 1
open(count, "a").write("x")
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
{more}
status = {{"token": f"token{{runs}}-{{os.environ.get('WHO')}}-{{sys.argv[1:]}}", **json.loads(os.environ.get("STATUS", "{{}}"))}}
json.dump({{"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}}, sys.stdout)
"""


def program(folder: Path, more: str = "") -> Path:
    path = folder / "plugin"
    path.write_text(PRINT.format(python=sys.executable, more=more))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def test_an_exec_plugin_from_a_kubeconfig(tmp_path: Path) -> None:
    program(tmp_path, "assert info['spec'] == {'interactive': False, 'cluster': {'server': 'https://s:6443'}}, info")
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "./plugin",
        "args": ["a", "b"],
        "env": [{"name": "WHO", "value": "me"}],
        "provideClusterInfo": True,
        "interactiveMode": "IfAvailable",
    }
    access = read(tmp_path, config(user={"exec": plugin}))
    assert await token(access) == "token1-me-['a', 'b']"
    assert await token(access) == "token1-me-['a', 'b']"
    first = await access.credentials.current()
    access.credentials.refused(first)
    assert await token(access) == "token2-me-['a', 'b']"
    access.credentials.refused(first)
    assert await token(access) == "token2-me-['a', 'b']"


def plugin_of(path: Path, now: datetime, **environ: str) -> ExecPlugin:
    command = Command("client.authentication.k8s.io/v1", (str(path),), environ, hint="install\nit")
    return ExecPlugin(command, clock=now.timestamp)


async def test_a_credential_that_expires(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    path = program(tmp_path)

    def until(seconds: float) -> str:
        return json.dumps({"expirationTimestamp": f"{now + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"})

    short = plugin_of(path, now, STATUS=until(5))
    assert [(await short.current()).token[:6] for _ in range(2)] == ["token1", "token2"]
    long = plugin_of(path, now, STATUS=until(50))
    assert [(await long.current()).token[:6] for _ in range(2)] == ["token3", "token3"]


async def test_a_certificate_by_a_program(tmp_path: Path) -> None:
    status = '{"token": "", "clientCertificateData": "cert", "clientKeyData": "key"}'
    found = await plugin_of(program(tmp_path), datetime.now(UTC), STATUS=status).current()
    assert found == Credential("", b"cert", b"key")


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        ("sys.exit('no\\nluck')", "{}", "exit code 1: no luck"),
        ("print('verysecret')", "{}", "not an ExecCredential"),
        ("info['apiVersion'] = 'v0'", "{}", "did not print an ExecCredential of client.authentication.k8s.io/v1"),
        ("", '{"token": ""}', "neither a token nor a certificate"),
        ("", '{"clientCertificateData": "c"}', "a certificate without a key"),
        ("", '{"expirationTimestamp": "soon"}', "not an ExecCredential"),
    ],
)
async def test_programs_that_give_nothing(tmp_path: Path, more: str, status: str, told: str) -> None:
    with pytest.raises(Unauthorized, match=told) as caught:
        await plugin_of(program(tmp_path, more), datetime.now(UTC), STATUS=status).current()
    line = str(caught.value)
    assert "verysecret" not in line
    assert line.endswith("install it")


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="No such file"):
        await plugin_of(tmp_path / "none", datetime.now(UTC)).current()


def test_data_with_line_breaks_is_base64_too(tmp_path: Path) -> None:
    data = base64.encodebytes(b"no certificate" * 20).decode()
    with pytest.raises(StartError, match="certificate authority's data cannot be used"):
        read(tmp_path, config({"certificate-authority-data": data}))
