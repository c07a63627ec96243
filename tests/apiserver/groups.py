# SPDX-License-Identifier: Apache-2.0
"""API discovery: which groups, versions and resources are served; the server's version and health."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from tests.apiserver.kinds import Kind
from tests.apiserver.request import Request
from tests.apiserver.rules import Rules
from tests.apiserver.status import JSON, TEXT, no_such_path

VERSION = {
    "major": "1",
    "minor": "34",
    "emulationMajor": "1",
    "emulationMinor": "34",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "33",
    "gitVersion": "v1.34.1",
    "gitCommit": "93248f9ae092f571eb870b7664c534bfc7d00f03",
    "gitTreeState": "clean",
    "buildDate": "2025-09-09T19:34:57Z",
    "goVersion": "go1.24.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def answer(rules: Rules, request: Request) -> tuple[bytes, str]:
    """Body and content type of a path that is no resource's; Refused (404) when nothing is there."""
    path = request.path.rstrip("/")
    if path in ("/healthz", "/livez", "/readyz"):
        return b"ok", TEXT
    if path == "/version":
        return orjson.dumps(VERSION, option=orjson.OPT_INDENT_2), JSON
    kinds = list(rules.installed())
    words = tuple(path.strip("/").split("/"))
    if words == ("api",):
        body: Any = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    elif words == ("apis",):
        names = list(dict.fromkeys(one.group for one in kinds if one.group))
        body = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(kinds, name) for name in names]}
    elif words[0] == "apis" and len(words) == 2 and any(one.group == words[1] for one in kinds):
        body = {"kind": "APIGroup", "apiVersion": "v1", **_group(kinds, words[1])}
    else:
        body = _resources(kinds, words)
    return orjson.dumps(body) + b"\n", JSON


def _group(kinds: Iterable[Kind], name: str) -> dict[str, Any]:
    versions = dict.fromkeys(one.version for one in kinds if one.group == name)
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(kinds: Iterable[Kind], words: tuple[str, ...]) -> dict[str, Any]:
    group, version = ("", words[-1]) if words[0] == "api" else ("/".join(words[1:-1]), words[-1])
    served = [one for one in kinds if (one.group, one.version) == (group, version)]
    if not served or words[0] not in ("api", "apis") or len(words) != (3 if group else 2):
        raise no_such_path()
    listed = [entry for one in served for entry in _entries(one)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served[0].api_version, "resources": listed}


def _entries(kind: Kind) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    if not kind.status:
        return [entry]
    below = {"singularName": "", "namespaced": kind.namespaced, "kind": kind.kind, "verbs": ["get", "patch", "update"]}
    return [entry, {"name": f"{kind.plural}/status", **below}]
