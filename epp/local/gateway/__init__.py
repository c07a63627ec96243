# SPDX-License-Identifier: Apache-2.0
"""Envoy's configuration for a gateway of models on one machine: from a `Topology` to a bootstrap file."""
