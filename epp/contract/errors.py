# SPDX-License-Identifier: Apache-2.0
"""Every error of this package, in one tree.

    EppError                      a person or a peer can cause it: one line, the thing, the value, the remedy
    ├── UsageError                a command line flag or an option is wrong            (exit code 2)
    ├── ConfigError               a configuration, plugin or parameter is wrong        (exit code 1)
    ├── StartError                a port, file or certificate cannot be used           (exit code 1)
    ├── DiscoveryError            a source of endpoints holds something unusable
    ├── ScrapeError               an endpoint's metrics page cannot be read
    ├── PluginError               a plugin returned something that breaks its contract
    ├── ProtocolError             an ext_proc peer broke the protocol
    └── RequestError              one request is answered with an error instead of an endpoint
        ├── BadRequest            400  the body or the path cannot be used
        ├── NotFound              404
        ├── BodyTooLarge          413  the body is over the configured limit
        ├── UnsupportedEncoding   415  a content-encoding that is not gzip or deflate
        ├── ResourceExhausted     429  there are endpoints, but none may take the request now
        ├── Internal              500  our fault
        └── ServiceUnavailable    503  there is no endpoint

A `RequestError` becomes the body `inference error: <Code> - <message>`; `reason` fills the response header
`x-llm-d-request-dropped-reason`.
"""

from __future__ import annotations

from typing import ClassVar


class EppError(Exception):
    """The root. `str(error)` is one line made for the person who can act on it."""

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The same for a log: one line for each mistake, where an error stands for several."""
        return (str(self),)


class UsageError(EppError):
    """A command line flag or option is wrong."""


class ConfigError(EppError):
    """A configuration file, a plugin or one of its parameters is wrong."""


class StartError(EppError):
    """The process cannot start: a port is taken, a file or a certificate is unreadable."""


class DiscoveryError(EppError):
    """A source of endpoints holds something unusable; the last good state is kept."""


class ScrapeError(EppError):
    """An endpoint's metrics page cannot be read; its last values are kept."""


class PluginError(EppError):
    """A plugin returned something that breaks its contract."""


class ProtocolError(EppError):
    """A peer sent something that ext_proc or gRPC does not allow."""


class RequestError(EppError):
    """One request is answered with `status` and the error envelope instead of being routed."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "Internal"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class BadRequest(RequestError):
    """The request's body or path cannot be used."""

    status = 400
    code = "BadRequest"


class NotFound(RequestError):
    """What the request names does not exist."""

    status = 404
    code = "NotFound"


class BodyTooLarge(RequestError):
    """The request's body is over the configured limit."""

    status = 413
    code = "BodyTooLarge"


class UnsupportedEncoding(RequestError):
    """The request's body has a content-encoding that cannot be read."""

    status = 415
    code = "UnsupportedEncoding"


class ResourceExhausted(RequestError):
    """There are endpoints, but none may take this request now."""

    status = 429
    code = "ResourceExhausted"


class Internal(RequestError):
    """A fault of ours."""


class ServiceUnavailable(RequestError):
    """There is no endpoint to send the request to."""

    status = 503
    code = "ServiceUnavailable"
