# SPDX-License-Identifier: Apache-2.0
"""Log lines: making, gathering and writing them."""
