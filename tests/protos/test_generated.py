# SPDX-License-Identifier: Apache-2.0
"""The generated messages say what protos/ says, and protos/ says what Envoy's own messages say on the wire."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

PROTOS = Path(__file__).parents[2] / "protos"


@pytest.mark.parametrize("name", ["ext_proc", "health", "access_log", "rls"])
def test_the_generated_code_is_in_step(name: str, tmp_path: Path) -> None:
    out = tmp_path / "set.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-Iepp/protos={PROTOS}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, f"epp/protos/{name}.proto"], check=True, capture_output=True, timeout=60)
    [compiled] = FileDescriptorSet.FromString(out.read_bytes()).file
    committed = FileDescriptorProto()
    importlib.import_module(f"epp.protos.{name}_pb2").DESCRIPTOR.CopyToProto(committed)
    for descriptor in (compiled, committed):
        _drop_derived_names(descriptor)
    assert committed == compiled, "run `make protos`"


def _drop_derived_names(descriptor: FileDescriptorProto) -> None:
    """protoc writes JSON names into a descriptor set, the generated module leaves them to be derived."""
    pending = list(descriptor.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")


@pytest.mark.filterwarnings("ignore:Using .@model_validator:DeprecationWarning")
def test_envoys_own_messages_are_read_alike() -> None:
    envoy = importlib.import_module("envoy_data_plane.envoy.service.ext_proc.v3")
    core = importlib.import_module("envoy_data_plane.envoy.config.core.v3")
    ours = importlib.import_module("epp.protos.ext_proc_pb2")
    theirs = envoy.ProcessingRequest(
        request_headers=envoy.HttpHeaders(
            headers=core.HeaderMap(headers=[core.HeaderValue(key=":path", raw_value=b"/v1")]), end_of_stream=True
        ),
        protocol_config=envoy.ProtocolConfiguration(request_body_mode=4, response_body_mode=2),
        observability_mode=True,
    )
    read = ours.ProcessingRequest.FromString(bytes(theirs))
    assert read.request_headers.end_of_stream
    [header] = read.request_headers.headers.headers
    assert (header.key, header.raw_value) == (":path", b"/v1")
    assert (read.protocol_config.request_body_mode, read.protocol_config.response_body_mode) == (4, 2)
    assert read.observability_mode
