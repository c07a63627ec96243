# SPDX-License-Identifier: Apache-2.0
"""kubeconfig files: the current context's cluster and user, as an `Access`.

Several files are one: of each cluster, user, context, and of `current-context`, the first file that has it wins, and a
path is relative to the file it stands in. What we do not do is refused by name, so that nobody connects in a way that
the file does not say.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import yaml

from epp.contract.errors import StartError
from epp.kube.access import Access
from epp.kube.credentials import Credential, Credentials, Fixed, TokenFile
from epp.kube.execplugin import API_VERSIONS, Command, ExecPlugin
from epp.kube.tls import Pem, Tls

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNSUPPORTED_CLUSTER = {"proxy-url": "unset it and let the server be reached directly"}
_UNSUPPORTED_USER = {
    "auth-provider": "use an exec plugin",
    "username": "use a token, a client certificate or an exec plugin",
    "password": "use a token, a client certificate or an exec plugin",
    "as": "name a user that has the rights itself",
    "as-uid": "name a user that has the rights itself",
    "as-groups": "name a user that has the rights itself",
    "as-user-extra": "name a user that has the rights itself",
}


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, rename="camel"):
    command: str
    api_version: str = ""
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class _User(msgspec.Struct, rename="kebab"):
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    exec: _Exec | None = None


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


T = TypeVar("T")


class _Entry:
    """A named thing of a file: what it is called in messages, its content, and the folder its paths start from."""

    def __init__(self, what: str, content: Any, folder: Path) -> None:
        self.what = what
        self.content = content if content is not None else {}
        self.folder = folder

    def read(self, kind: type[T], unsupported: Mapping[str, str]) -> T:
        """The content as `kind`."""
        fields = self.content
        for name, remedy in unsupported.items():
            if isinstance(fields, dict) and fields.get(name):
                raise StartError(f"{self.what}: {name} is not supported; {remedy}")
        if isinstance(fields, dict):
            fields = {name: value for name, value in fields.items() if value is not None}
        try:
            return msgspec.convert(fields, kind, strict=False)
        except msgspec.ValidationError as error:
            raise StartError(f"{self.what}: {error}") from None

    def pem(self, name: str, path: str, data: str) -> Pem | None:
        """A certificate or key; the data win over the path, as everywhere."""
        if data:
            try:
                return base64.b64decode("".join(data.split()), validate=True)
            except (binascii.Error, ValueError):
                raise StartError(f"{self.what}: {name}-data is not base64") from None
        return self.path(path) if path else None

    def path(self, name: str) -> Path:
        """A path as this file means it."""
        return self.folder / name


def read_kubeconfig(paths: Sequence[Path], environ: Mapping[str, str]) -> Access:
    """The access of the current context. `environ` is handed to exec plugins. Raises `StartError`."""
    # A pipe will do, `--kubeconfig <(...)`.
    there = [path for path in paths if path.exists()]
    names = " and ".join(str(path) for path in paths)
    if not there:
        raise StartError(f"kubeconfig {names} is not there; name one with --kubeconfig, or unset $KUBECONFIG")
    found = _merge((path, _load(path)) for path in there)
    current = found.get(("current-context", ""))
    if current is None:
        raise StartError(f"kubeconfig {names} has no current-context; set it with `kubectl config use-context`")
    context = _find(found, "contexts", str(current.content), names).read(_Context, {})
    cluster_entry = _find(found, "clusters", context.cluster, names)
    user_entry = _find(found, "users", context.user, names) if context.user else _Entry("no user", {}, Path())
    cluster, user = cluster_entry.read(_Cluster, _UNSUPPORTED_CLUSTER), user_entry.read(_User, _UNSUPPORTED_USER)
    server = cluster.server.rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise StartError(f'{cluster_entry.what}: server is "{cluster.server}", which must begin with https://')
    if not _is_address(server):
        raise StartError(f'{cluster_entry.what}: server is "{cluster.server}", which is no https://HOST:PORT')
    user.token = user.token.strip()
    if not user.token.isprintable():
        raise StartError(f"{user_entry.what}: token has line breaks or other characters that no header may have")
    return Access(
        server=server,
        namespace=context.namespace or "default",
        origin=user_entry.what,
        tls=_tls(cluster_entry, cluster, user_entry, user) if server.startswith("https://") else None,
        credentials=_credentials(cluster_entry, cluster, user_entry, user, environ),
    )


def _is_address(server: str) -> bool:
    """Whether a URL has a host, and a port that is one or none."""
    try:
        parts = urlsplit(server)
        return bool(parts.hostname) and not set(server) & set(" \t") and parts.port != 0
    except ValueError:
        return False


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), _LOADER)
    except OSError as error:
        raise StartError(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        # The error's own text quotes the file, which holds secrets.
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise StartError(f"kubeconfig {path} is not YAML, see line {line}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise StartError(f"kubeconfig {path} is not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StartError(f"kubeconfig {path} must be a mapping of clusters, users and contexts")
    return content


def _merge(files: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[tuple[str, str], _Entry]:
    """Every named thing by its section and name."""
    found: dict[tuple[str, str], _Entry] = {}
    for path, content in files:
        folder = path.resolve().parent
        if content.get("current-context"):
            entry = _Entry(f"kubeconfig {path}", content["current-context"], folder)
            found.setdefault(("current-context", ""), entry)
        for section in ("clusters", "users", "contexts"):
            entries = content.get(section) or []
            if not isinstance(entries, list):
                raise StartError(f"kubeconfig {path}: {section} must be a list")
            for item in entries:
                if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                    raise StartError(f"kubeconfig {path}: every one of {section} must be a mapping with a name")
                what = f'kubeconfig {path}, {section[:-1]} "{item["name"]}"'
                found.setdefault((section, item["name"]), _Entry(what, item.get(section[:-1]), folder))
    return found


def _find(found: Mapping[tuple[str, str], _Entry], section: str, name: str, names: str) -> _Entry:
    entry = found.get((section, name))
    if entry is None:
        there = ", ".join(sorted(other for kind, other in found if kind == section)) or "none"
        raise StartError(f'kubeconfig {names}: {section} has no "{name}"; there is: {there}')
    return entry


def _tls(cluster_entry: _Entry, cluster: _Cluster, user_entry: _Entry, user: _User) -> Tls:
    authority = cluster_entry.pem(
        "certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data
    )
    if authority is not None and cluster.insecure_skip_tls_verify:
        raise StartError(f"{cluster_entry.what}: certificate-authority and insecure-skip-tls-verify exclude each other")
    certificate = user_entry.pem("client-certificate", user.client_certificate, user.client_certificate_data)
    key = user_entry.pem("client-key", user.client_key, user.client_key_data)
    if (certificate is None) != (key is None):
        raise StartError(f"{user_entry.what}: client-certificate and client-key are of use only together")
    return Tls(
        authority=authority,
        pair=(certificate, key) if certificate is not None and key is not None else None,
        insecure=cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
    )


def _credentials(
    cluster_entry: _Entry, cluster: _Cluster, user_entry: _Entry, user: _User, environ: Mapping[str, str]
) -> Credentials:
    if user.exec is not None:
        command = _command(user.exec, user_entry, environ)
        if user.exec.provide_cluster_info:
            command = dataclasses.replace(command, cluster=_told(cluster_entry, cluster))
        return ExecPlugin(command)
    if user.token_file:
        return TokenFile(user_entry.path(user.token_file), otherwise=user.token)
    return Fixed(Credential(user.token))


def _command(plugin: _Exec, entry: _Entry, environ: Mapping[str, str]) -> Command:
    if plugin.api_version not in API_VERSIONS:
        raise StartError(
            f'{entry.what}: exec apiVersion "{plugin.api_version}" is not supported, only {" and ".join(API_VERSIONS)}'
        )
    if plugin.interactive_mode == "Always":
        raise StartError(f"{entry.what}: exec interactiveMode Always is not supported; nobody is there to answer")
    program = str(entry.path(plugin.command)) if "/" in plugin.command else plugin.command
    return Command(
        api_version=plugin.api_version,
        argv=(program, *(plugin.args or ())),
        environ={**environ, **{variable.name: variable.value for variable in plugin.env or ()}},
        hint=plugin.install_hint or "",
    )


def _told(entry: _Entry, cluster: _Cluster) -> dict[str, object]:
    """The cluster as the program is told about it."""
    told: dict[str, object] = {"server": cluster.server}
    if cluster.tls_server_name:
        told["tls-server-name"] = cluster.tls_server_name
    if cluster.insecure_skip_tls_verify:
        told["insecure-skip-tls-verify"] = True
    authority = entry.pem("certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data)
    if authority is not None:
        content = authority.read_bytes() if isinstance(authority, Path) else authority
        told["certificate-authority-data"] = base64.b64encode(content).decode()
    return told
