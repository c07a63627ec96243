# SPDX-License-Identifier: Apache-2.0
"""The admin HTTP server: /metrics, the pages under /debug/, and probes, on threads of their own.

`Admin` is the server; `review` asks Kubernetes who may read.
"""

from epp.admin.server import Admin

__all__ = ["Admin"]
