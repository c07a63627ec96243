# SPDX-License-Identifier: Apache-2.0
"""Who is asking: bearer tokens and client certificates."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.apiserver.rules import ANONYMOUS
from tests.apiserver.status import unauthorized

AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True, slots=True)
class User:
    """A user as roles know them."""

    name: str
    groups: tuple[str, ...]

    @property
    def uid(self) -> str:
        """Always the same for one name."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]


class Users(dict[str, tuple[str, tuple[str, ...]]]):
    """Token -> (name, groups)."""

    def of_token(self, token: str) -> User | None:
        """Whose token it is; None: nobody's."""
        found = self.get(token)
        return None if found is None else User(found[0], tuple(found[1]))

    def of(self, authorization: str, certificate: Mapping[str, Any] | None) -> User:
        """The user of a request, by its certificate or else its token; Refused (401) when the token is nobody's."""
        if certificate:
            parts = [pair for part in certificate.get("subject", ()) for pair in part]
            names = [value for field, value in parts if field == "commonName"]
            groups = tuple(value for field, value in parts if field == "organizationName")
            return User(names[0] if names else "", (*groups, AUTHENTICATED))
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return User(ANONYMOUS, ("system:unauthenticated",))
        user = self.of_token(token.strip())
        if user is None:
            raise unauthorized()
        return User(user.name, (*user.groups, AUTHENTICATED))


def service_account_user(namespace: str, name: str) -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def new_token(user: User, namespace: str, lifetime_s: int = 3607) -> str:
    """A token of the shape and size the real server issues: a JWT, though nobody could check its signature."""
    at = int(time.time())
    claims = {
        "aud": ["https://kubernetes.default.svc.cluster.local"],
        "exp": at + lifetime_s,
        "iat": at,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": secrets.token_hex(16),
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": user.name.rpartition(":")[2], "uid": user.uid},
        },
        "sub": user.name,
    }
    parts = [
        json.dumps({"alg": "RS256", "kid": "stand-in"}).encode(),
        json.dumps(claims).encode(),
        secrets.token_bytes(256),
    ]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
