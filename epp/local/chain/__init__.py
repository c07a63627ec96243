# SPDX-License-Identifier: Apache-2.0
"""The gateway that manifests describe, run on one machine: `epp up -f FILE...`.

plan (topology -> processes, addresses, files) -> parts (command lines) -> supervisor -> running, told, stopped
"""
