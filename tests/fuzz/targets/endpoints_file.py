# SPDX-License-Identifier: Apache-2.0
"""Endpoints files, YAML and JSON.

* `parse_entries` gives entries or raises a `DiscoveryError`; that, and every problem and remark, is one line.
* Endpoints have canonical addresses, ports from 1 to 65535, and texts that are Unicode.
* A pool takes them, and holds exactly those.
"""

from __future__ import annotations

import ipaddress
import json

from epp.contract.errors import DiscoveryError
from epp.discovery.entries import parse_entries
from epp.endpoints.pool import Pool
from tests.fuzz.harness import Run, Target, one_line


def _make() -> Run:
    pool = Pool(lambda: 0.0)

    def run(data: bytes) -> None:
        try:
            entries = parse_entries(data)
        except DiscoveryError as error:
            one_line(error)
            return
        for line in (*entries.problems, *entries.remarks):
            one_line(DiscoveryError(line))
        for spec in entries.specs:
            assert str(ipaddress.ip_address(spec.ip)) == spec.ip
            assert 1 <= spec.port <= 65535
            for text in (spec.id, spec.address, *spec.labels, *spec.labels.values()):
                text.encode()
        pool.apply(entries.specs)
        assert {endpoint.id for endpoint in pool} == {spec.id for spec in entries.specs}

    return run


_YAML = b"""\
endpoints:
  - name: pod-0
    namespace: default
    address: 10.0.0.1
    port: "8000"
    labels: {app: vllm, "llm-d.ai/engine-type": "vllm"}
  - {name: pod-1, address: "fd00::1", port: 8000}
  - &a
    name: pod-2
    address: ::ffff:10.0.0.3
    port: 0x1F40
  - *a
  - !!str text
"""


def _seeds() -> list[bytes]:
    entries = [
        {"name": "pod-0", "address": "10.0.0.1", "port": "8000", "labels": {"a": "b"}},
        {"name": "x", "port": 70000},
    ]
    return [
        _YAML,
        json.dumps({"endpoints": entries}, indent="\t").encode(),
        b"endpoints: []\n",
        b"\xef\xbb\xbfendpoints: [ ]",
    ]


_WORDS = (
    b"endpoints:", b"- ", b"\n", b": ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!int ", b"!x ", b"---\n", b"? ", b"| \n", b">",
    b'"\\ud800"', b'"\\n\\r\\u2028"', b"\xff", b"\xe2\x80\xa8", b"~", b"null", b"1e999", b"9" * 5000, b"[" * 40, b"%YAML 9.9\n",
    b"fe80::1%eth0", b"[::1]", b"NaN", b"\t", b"\x00", b"#", b"labels:", b"<<: *a", b"name: ", b"\xc2\x85",
)  # fmt: skip
TARGET = Target("endpoints_file", _make, _seeds, _WORDS)
