# SPDX-License-Identifier: Apache-2.0
"""Who may read a page: the token a request shows, and what was found out about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Verdict:
    """200: may read; 401: not known; 403: known and not allowed; 500: it could not be found out. `line` is for the
    one who asks."""

    status: Literal[200, 401, 403, 500]
    line: str = ""


Review = Callable[[str, str, str], Verdict]
"""`review(token, path, verb)`; the verb is the HTTP method in lower case. May block for seconds; raises nothing."""

NO_TOKEN = Verdict(401, "this page asks for a Kubernetes token: Authorization: Bearer TOKEN")


def bearer_token(authorization: str) -> str | None:
    """The token of an Authorization header; None when it holds none that could be one."""
    scheme, *rest = authorization.strip().split(" ", 2)
    if scheme.lower() != "bearer" or not rest:
        return None
    token = rest[0]
    return token if token and token.isascii() and token.isprintable() else None
