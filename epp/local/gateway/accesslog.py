# SPDX-License-Identifier: Apache-2.0
"""An access log in JSON, one line a request, for tests and for looking closely. No header that may hold a key is in
it, and of the path no query."""

from __future__ import annotations

from pathlib import Path

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.file import v3 as file
from envoy_data_plane.google import protobuf

from epp.contract.aigateway import COST_NAMESPACE, MODEL_HEADER
from epp.local.gateway.messages import packed

FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(x-request-id)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "user": "%REQ(x-user-id)%",
    "model": f"%REQ({MODEL_HEADER})%",
    "route": "%ROUTE_NAME%",
    "upstream": "%UPSTREAM_HOST%",
    "pod": "%RESP(x-inference-pod)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "duration_ms": "%DURATION%",
    "limit": "%RESP(x-ratelimit-limit)%",
    "remaining": "%RESP(x-ratelimit-remaining)%",
    "reset": "%RESP(x-ratelimit-reset)%",
    "costs": f"%DYNAMIC_METADATA({COST_NAMESPACE})%",
}


def access_log(path: Path) -> accesslog.AccessLog:
    """The access log, written to `path`."""
    layout = core.SubstitutionFormatString(json_format=protobuf.Struct.from_dict(FIELDS))
    config = file.FileAccessLog(path=str(path), log_format=layout)
    return accesslog.AccessLog(name="envoy.access_loggers.file", typed_config=packed(config))
