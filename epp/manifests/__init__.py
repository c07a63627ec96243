# SPDX-License-Identifier: Apache-2.0
"""Kubernetes manifests of a gateway for models, read without Kubernetes: what they ask for, as plain values."""
