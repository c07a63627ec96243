# SPDX-License-Identifier: Apache-2.0
"""Endpoints from a Kubernetes API server: a pool's object, the pods it selects, and what objects say about models.

`source` follows one pool, `fleet` many of them in one process. Both are put together from `poolswatch` (the pools),
`podfeed` (the pods) and `modelfeed` (priorities and rewrites); `poolspec`, `endpointtable` and `precedence` are pure.
"""
