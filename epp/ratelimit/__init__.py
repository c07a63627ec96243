# SPDX-License-Identifier: Apache-2.0
"""A rate limit service for Envoy (envoy.service.ratelimit.v3); rules and semantics are those of envoyproxy/ratelimit.

reading    YAML text or a mapping -> items that know their lines
limits     one limit, its units
rules      items -> `RuleBook`, every mistake with its line
matching   which limit a descriptor has, and under which key it is counted
ledger     counters: memory, or Redis shared by several replicas
engine     a request -> charges -> a response
headers    the limit as response headers, where the service sends them itself
"""
