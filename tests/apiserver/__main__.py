# SPDX-License-Identifier: Apache-2.0
"""The stand-in by hand: `python -m tests.apiserver --dir DIR --apply FILE`.

Prints one line of JSON with the URL, the directory, and the environment to run `epp serve` with; serves until Ctrl-C,
SIGTERM or the end of stdin. In DIR: `kubeconfig`, `ca.crt`, `serviceaccount/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.apiserver.roles import AUTH_DELEGATOR, KSERVE_ROLES
from tests.apiserver.server import ApiServer
from tests.apiserver.tutorial import RELEASES, tutorial


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description="A stand-in for kube-apiserver.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 or ::1")
    parser.add_argument(
        "--dir", type=Path, help="where certificates, token and kubeconfig go; a temporary one by default"
    )
    parser.add_argument("--namespace", default="kserve-test")
    parser.add_argument(
        "--apply", type=Path, action="append", default=[], metavar="FILE", help="YAML to apply; may be repeated"
    )
    parser.add_argument("--tutorial", choices=RELEASES, help="apply what KServe makes of its tutorial, in that release")
    parser.add_argument("--pods", type=int, default=4, help="pods of the tutorial, at 127.0.1.1 and on")
    parser.add_argument("--pod-port", type=int, default=8000, help="their port")
    parser.add_argument(
        "--role", choices=sorted(KSERVE_ROLES), help="grant only what KServe's Role of that release does"
    )
    return parser.parse_args()


def main() -> None:
    """Serve until Ctrl-C, SIGTERM or the end of stdin."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        folder = arguments.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apiserver-")))
        folder.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(
            ApiServer(namespace=arguments.namespace, host=arguments.host, port=arguments.port, folder=folder)
        )
        for file in arguments.apply:
            server.apply(file.read_text())
        if arguments.tutorial:
            server.apply(tutorial(arguments.tutorial, arguments.pods, port=arguments.pod_port))
        if arguments.role:
            server.rules.allow_only(KSERVE_ROLES[arguments.role], cluster=AUTH_DELEGATOR)
        kubeconfig = server.kubeconfig(folder / "kubeconfig", auth="token-file")
        line = {"url": server.url, "dir": str(folder), "kubeconfig": str(kubeconfig), "environ": server.environ}
        print(json.dumps(line), flush=True)
        for _ in sys.stdin:
            pass


if __name__ == "__main__":
    main()
