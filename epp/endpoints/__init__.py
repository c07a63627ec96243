# SPDX-License-Identifier: Apache-2.0
"""The pool of endpoints: its one writer, and the leases that requests hold on it."""
