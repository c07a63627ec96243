# SPDX-License-Identifier: Apache-2.0
"""TokenReview and SubjectAccessReview: whose token is this, and may they do that?"""

from __future__ import annotations

from typing import Any

import orjson

from tests.apiserver.kinds import ACCESS_REVIEWS, TOKEN_REVIEWS, Kind
from tests.apiserver.request import Request
from tests.apiserver.rules import Rules, grants_path
from tests.apiserver.status import bad_request, invalid
from tests.apiserver.users import Users

AUDIENCES = ["https://kubernetes.default.svc.cluster.local"]


class Reviews:
    """`grants` are (subject, verb, path): a user or a group, and a path that may end in `*`."""

    def __init__(self, users: Users, rules: Rules) -> None:
        self._users = users
        self._rules = rules
        self.grants: list[tuple[str, str, str]] = []

    def answer(self, kind: Kind, request: Request) -> bytes:
        """The review with its status filled in."""
        try:
            body = orjson.loads(request.body)
            spec = body.get("spec") or {}
        except (ValueError, AttributeError) as error:
            raise bad_request(f"the object provided is unrecognized: {error}") from None
        if kind is TOKEN_REVIEWS:
            status = self._token(spec)
        else:
            if kind is not ACCESS_REVIEWS:
                spec = {**spec, "user": request.user, "groups": list(request.groups)}
            status = self._access(kind, spec)
        names = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {"creationTimestamp": None}}
        return orjson.dumps({**names, "spec": spec, "status": status})

    def _token(self, spec: dict[str, Any]) -> dict[str, Any]:
        token, audiences = spec.get("token") or "", spec.get("audiences") or AUDIENCES
        if not token:
            raise invalid(TOKEN_REVIEWS, "", "spec.token", "Required value", "FieldValueRequired")
        user = self._users.of_token(token)
        shared = [one for one in audiences if one in AUDIENCES]
        if user is None or not shared:
            return {"user": {}, "error": "invalid bearer token"}
        told = {"username": user.name, "uid": user.uid, "groups": [*user.groups, "system:authenticated"]}
        return {"authenticated": True, "user": told, "audiences": shared}

    def _access(self, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
        path: dict[str, Any] | None = spec.get("nonResourceAttributes")
        resource: dict[str, Any] = spec.get("resourceAttributes") or {}
        if (path is None) == (not resource):
            why = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            raise invalid(kind, "", "spec.resourceAttributes", why)
        user, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
        if not user and not groups:
            raise invalid(kind, "", "spec.user", "Invalid value: at least one of user or group must be specified")
        if path is not None:
            allowed = self._may(user, groups, path.get("verb", ""), path.get("path", ""))
        else:
            asked = Request("", "", {}, plural=resource.get("resource") or "", user=user, groups=groups)
            for field in ("verb", "group", "namespace", "name", "subresource"):
                setattr(asked, field, resource.get(field) or "")
            allowed = self._rules.allows(asked)
        return {"allowed": True, "reason": "RBAC: allowed by a binding"} if allowed else {"allowed": False}

    def _may(self, user: str, groups: tuple[str, ...], verb: str, path: str) -> bool:
        if "system:masters" in groups:
            return True
        return any(
            subject in (user, *groups) and grants_path({"verbs": [granted], "nonResourceURLs": [url]}, verb, path)
            for subject, granted, url in self.grants
        )
