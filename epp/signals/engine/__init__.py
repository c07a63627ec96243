# SPDX-License-Identifier: Apache-2.0
"""What engines call their signals, and how pages are read."""
