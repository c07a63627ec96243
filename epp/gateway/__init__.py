# SPDX-License-Identifier: Apache-2.0
"""The process `epp gateway`: which model a request asks for, as a header by which Envoy routes; and what the answers of
models without an endpoint picker cost, as metadata that Envoy's rate limits book."""
