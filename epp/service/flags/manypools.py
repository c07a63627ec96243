# SPDX-License-Identifier: Apache-2.0
"""Which pools the command line asks for: one, several by name, or all there are.

A single name is served as it always was. Several names, `*` in the place of a name or of the namespace, --endpoints-dir
and --config-dir mean many pools in one process, also where it is one for the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.contract.errors import UsageError

EVERY = "*"
_OF_ONE_POOL = ("endpoint-selector", "endpoints", "endpoints-file")
_OF_MANY = ("config-dir", "pool-ports")


def pools_of(values: Mapping[str, Any], environ: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """The fields of `Options` that say which pools. Raises `UsageError`; adds to `notes` what a person should know."""
    names = tuple(dict.fromkeys(name for name in values["pool-name"] if name))
    home = environ.get("NAMESPACE") or "default"
    namespace = values["pool-namespace"] or home
    folder = values["endpoints-dir"]
    if folder and not names:
        names = (EVERY,)
        namespace = values["pool-namespace"] or EVERY
    if EVERY in names and len(names) > 1:
        notes.append("--pool-name '*' is every pool: the other names add nothing")
        names = (EVERY,)
    many = bool(names) and (len(names) > 1 or EVERY in (*names, namespace) or bool(folder or values["config-dir"]))
    if many:
        for flag in _OF_ONE_POOL:
            if values[flag]:
                raise UsageError(
                    f"--{flag} is of one pool, and many are asked for (several --pool-name, '*', --endpoints-dir or "
                    "--config-dir): give --endpoints-dir, or one --pool-name"
                )
        if len(names) > 1:
            notes.append(f"--pool-name names {len(names)} pools, and each is served: {', '.join(names)}")
    else:
        unused = [flag for flag in _OF_MANY if values[flag]]
        notes.extend([f"--{flag} says something only where pools are named with --pool-name" for flag in unused])
        if namespace == EVERY:
            raise UsageError("--pool-namespace '*' needs --pool-name: a name, or '*' for every pool of the cluster")
    return {
        "pool_name": "" if many or not names else names[0],
        "pool_names": names if many else (),
        "pool_namespace": namespace,
        "lease_namespace": home if namespace == EVERY else "",
    }
