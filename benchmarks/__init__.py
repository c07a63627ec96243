# SPDX-License-Identifier: Apache-2.0
"""What the endpoint picker costs, measured: `python -m benchmarks`.

Absolute figures belong to one machine; ratios travel. So every row is measured next to a reference in the same run,
in turns (A B A B), and the medians are compared.

rows           one line of the table: value, reference, budget, verdict
report         the table and the facts about the machine
proc           CPU time and memory of a process, out of /proc
stack          the parts that a request passes: pods, an endpoint picker, Envoy
legs           one timed stretch of load, and what it cost
proxied        rows: request, chunk
decision       row: decision
start, memory  rows: start, memory
prefix, scrape measurements for the rows hash, index and scrape; both also run alone
modules        their rows
echo_grpcio    the reference endpoint picker
upstream, load the other ends of the line: pods and clients (or wrk, where it is installed)
"""
