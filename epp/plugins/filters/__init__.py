# SPDX-License-Identifier: Apache-2.0
"""Built-in filters, one file each: they say which candidates may be chosen at all.

Every docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin.
"""
