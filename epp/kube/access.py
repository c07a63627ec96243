# SPDX-License-Identifier: Apache-2.0
"""How to reach the API server and convince it: from flags, environment, a kubeconfig or the pod's service account.

Looked for in this order, and the first that is there must be usable: the file named by --kubeconfig; the files of
$KUBECONFIG; the service account of the pod; ~/.kube/config. Files are small and on memory or local disk: they are read
where they are needed, also on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epp.contract.errors import StartError
from epp.kube.credentials import NOBODY, Credentials, Fixed, TokenFile
from epp.kube.tls import Tls

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """One API server and who we are to it.

    * server: URL without a slash at the end: `https://10.0.0.1:443`, `https://[fd00::1]:443`, also with a path
    * namespace: our own, where objects are looked for when nothing else is said
    * origin: where all this was found, for messages
    * tls: None for plain HTTP
    """

    server: str
    namespace: str = "default"
    origin: str = "given"
    tls: Tls | None = None
    credentials: Credentials = field(default_factory=lambda: Fixed(NOBODY), repr=False)


def find_access(
    environ: Mapping[str, str], kubeconfig: Path | None = None, *, service_account: Path = SERVICE_ACCOUNT
) -> Access | None:
    """The access that the environment offers, None when it offers none.

    Raises `StartError` when one is there and cannot be used.
    """
    # YAML and all that is read only where there is a kubeconfig.
    if kubeconfig is not None:
        from epp.kube.kubeconfig import read_kubeconfig

        return read_kubeconfig((kubeconfig,), environ)
    named = tuple(Path(name) for name in environ.get("KUBECONFIG", "").split(":") if name)
    if named:
        from epp.kube.kubeconfig import read_kubeconfig

        return read_kubeconfig(named, environ)
    if environ.get("KUBERNETES_SERVICE_HOST") and environ.get("KUBERNETES_SERVICE_PORT"):
        return in_cluster(environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"], service_account)
    usual = Path(environ["HOME"], ".kube", "config") if environ.get("HOME") else None
    if usual is not None and usual.is_file():
        from epp.kube.kubeconfig import read_kubeconfig

        return read_kubeconfig((usual,), environ)
    return None


def in_cluster(host: str, port: str, service_account: Path) -> Access:
    """The access of a pod: `token`, `ca.crt` and `namespace` of its service account directory."""
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise StartError(f'KUBERNETES_SERVICE_PORT is "{port}", which is no port (1 to 65535)')
    if not (service_account / "token").is_file():
        raise StartError(
            f"this is a pod (KUBERNETES_SERVICE_HOST is set), but {service_account}/token is not there; "
            "set automountServiceAccountToken: true, or name a kubeconfig with --kubeconfig"
        )
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    authority = service_account / "ca.crt"
    try:
        namespace = (service_account / "namespace").read_text("utf-8", "replace").strip()
    except OSError:
        namespace = ""
    return Access(
        server=f"https://{bracketed}:{port}",
        namespace=namespace or "default",
        origin=f"the service account in {service_account}",
        tls=Tls(authority=authority if authority.is_file() else None),
        credentials=TokenFile(service_account / "token"),
    )
