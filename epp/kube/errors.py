# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with the API server.

ApiError                the one line says what was asked, what the answer was, and what would mend it
├── Unreachable         nobody answered, or the connection broke
├── Unauthorized   401  the token or certificate is not accepted
├── Forbidden      403  a role lacks a verb on a resource
├── Missing        404  the object, or its whole kind (no CRD), is not there
├── Conflict       409  somebody else changed or made it first
├── Gone           410  the resource version is too old: list again
└── TooMany        429  the server asks for patience; `retry_after_s`
"""

from __future__ import annotations

from epp.contract.errors import EppError
from epp.kube.resource import Resource


class ApiError(EppError):
    """The API server did not do what it was asked to. `status` is HTTP's, 0 when there was no answer."""

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        verb: str = "",
        resource: Resource | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.verb = verb
        self.resource = resource
        self.retry_after_s = retry_after_s


class Unreachable(ApiError):
    """Nobody answered, or the connection broke."""


class Unauthorized(ApiError):
    """The token or the client certificate is not accepted."""


class Forbidden(ApiError):
    """A role lacks `verb` on `resource`."""


class Missing(ApiError):
    """The object, or its kind, is not there."""


class Conflict(ApiError):
    """Somebody else changed or made it first."""


class Gone(ApiError):
    """The resource version is too old: list again."""


class TooMany(ApiError):
    """The server asks for patience."""
