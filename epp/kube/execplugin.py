# SPDX-License-Identifier: Apache-2.0
"""Credentials from a program: the `exec` of a kubeconfig, `client.authentication.k8s.io/v1` and `v1beta1`.

The program prints an ExecCredential; what it prints is used until it expires or the server refuses it, and is never
shown. The program is run without a terminal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from epp.kube.credentials import NOBODY, Credential
from epp.kube.errors import Unauthorized

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_LONGEST_RUN_S = 60.0
_EARLY_S = 10.0
"""A credential is renewed so long before it expires: a request that is on its way must not come too late."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `environ` is the whole environment of the program, `cluster` what it is told about the server.

    `hint` says how to install the program.
    """

    api_version: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    cluster: Mapping[str, object] | None = None
    hint: str = ""


class _Status(msgspec.Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: _Status | None = None


class ExecPlugin:
    """Runs the program when there is no credential, or it expired, or it was refused."""

    def __init__(self, command: Command, *, clock: Callable[[], float] = time.time) -> None:
        self._command = command
        self._clock = clock
        self._credential = NOBODY
        self._until_s = float("-inf")
        self._running = asyncio.Lock()

    async def current(self) -> Credential:
        """The program's credential. Raises `Unauthorized` when it gives none."""
        async with self._running:
            if self._clock() >= self._until_s:
                self._credential, self._until_s = _read(await self._run(), self._command)
        return self._credential

    def refused(self, credential: Credential) -> None:
        """The next `current` runs the program."""
        if credential == self._credential:
            self._until_s = float("-inf")

    async def _run(self) -> bytes:
        command = self._command
        spec: dict[str, object] = {"interactive": False}
        if command.cluster is not None:
            spec["cluster"] = command.cluster
        info = {"apiVersion": command.api_version, "kind": "ExecCredential", "spec": spec}
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**command.environ, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()},
            )
        except (OSError, ValueError) as error:
            raise _failure(command, getattr(error, "strerror", None) or str(error)) from None
        try:
            async with asyncio.timeout(_LONGEST_RUN_S):
                output, said = await process.communicate()
        except TimeoutError:
            raise _failure(command, f"it did not end within {_LONGEST_RUN_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            words = " ".join(said.decode("utf-8", "replace").split())[:200]
            raise _failure(command, f"exit code {process.returncode}{': ' if words else ''}{words}")
        return output


def _read(output: bytes, command: Command) -> tuple[Credential, float]:
    """The credential, and until when it may be used in seconds since 1970."""
    try:
        found = msgspec.json.decode(output, type=_ExecCredential)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _failure(command, "what it printed is not an ExecCredential") from None
    if found.kind != "ExecCredential" or found.api_version != command.api_version:
        raise _failure(command, f"it did not print an ExecCredential of {command.api_version}")
    status = found.status
    if status is None or not (status.token or status.client_certificate_data):
        raise _failure(command, "it printed neither a token nor a certificate")
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise _failure(command, "it printed a certificate without a key, or a key without a certificate")
    expires = status.expiration_timestamp
    until_s = expires.timestamp() - _EARLY_S if expires is not None else float("inf")
    pair = status.client_certificate_data.encode(), status.client_key_data.encode()
    return Credential(status.token.strip(), *pair), until_s


def _failure(command: Command, reason: str) -> Unauthorized:
    hint = f"; {' '.join(command.hint.split())}" if command.hint else ""
    return Unauthorized(
        f'credential program "{command.argv[0]}" gave no credential: {reason}; '
        f"run it by hand to see why, or mend users[].user.exec in the kubeconfig{hint}",
        verb="exec",
    )
