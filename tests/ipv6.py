# SPDX-License-Identifier: Apache-2.0
"""Whether this machine has `::1`. Containers often do not, although sockets of that family can be made."""

from __future__ import annotations

import socket

import pytest


def has_ipv6() -> bool:
    """Whether something can listen on `::1`."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
