# SPDX-License-Identifier: Apache-2.0
"""Built-in scorers, one file each: a value from 0 to 1 for every candidate, higher is better.

Every docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin. Each file stands alone on
`epp.api`, so that any of them can be copied as the start of a plugin of your own.
"""
