# SPDX-License-Identifier: Apache-2.0
"""`metadata.managedFields` of an object: who owns which field. Real objects carry it, and half of their size is it."""

from __future__ import annotations

from typing import Any

TIME = "2026-08-06T09:12:44Z"


def _owned(value: Any) -> dict[str, Any]:
    """The fields of a value, as a tree of `f:` and `k:` keys."""
    if isinstance(value, dict):
        return {f"f:{name}": _owned(part) for name, part in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        tree: dict[str, Any] = {}
        for part in value:
            field = next((name for name in ("name", "type", "ip", "key", "containerPort") if name in part), "")
            if not field:
                return {}
            told = f'"{part[field]}"' if isinstance(part[field], str) else part[field]
            tree[f'k:{{"{field}":{told}}}'] = {".": {}, **_owned(part)}
        return tree
    return {}


def managed_fields(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What a controller manager owns (metadata and spec) and what kubelet owns (the status)."""
    meta = {name: body["metadata"][name] for name in ("labels", "generateName") if name in body["metadata"]}
    common = {"apiVersion": body["apiVersion"], "fieldsType": "FieldsV1", "operation": "Update", "time": TIME}
    return [
        {**common, "manager": "kube-controller-manager", "fieldsV1": _owned({"metadata": meta, "spec": body["spec"]})},
        {**common, "manager": "kubelet", "fieldsV1": _owned({"status": body["status"]}), "subresource": "status"},
    ]
