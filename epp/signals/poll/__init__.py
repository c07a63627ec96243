# SPDX-License-Identifier: Apache-2.0
"""When endpoints are asked for their pages, and how."""
