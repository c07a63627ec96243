# SPDX-License-Identifier: Apache-2.0
"""Envoy's gRPC access log, received: how requests ended whose responses nobody watched.

Give `AccessLogs(sink).open` to a gRPC transport under `PATH`. Every end of a request becomes one `Ended`, told to the
sink at once; what else a log may hold (entries of running requests, of single attempts, of TCP) is counted and left.
"""

from epp.accesslog.entry import Ended, ends
from epp.accesslog.service import PATH, AccessLogs, LogCounts, Sink

__all__ = ["PATH", "AccessLogs", "Ended", "LogCounts", "Sink", "ends"]
