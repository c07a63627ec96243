# SPDX-License-Identifier: Apache-2.0
"""Built-in plugins that set headers on responses, one file each.

Every docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin.
"""
