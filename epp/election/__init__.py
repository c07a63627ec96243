# SPDX-License-Identifier: Apache-2.0
"""Which of several replicas answers: one holds a Lease of the Kubernetes API, the others stand by (`election`)."""
