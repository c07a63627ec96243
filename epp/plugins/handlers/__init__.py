# SPDX-License-Identifier: Apache-2.0
"""Built-in profile handlers, one file each: which scheduling profiles run for a request, and whose choice counts."""
