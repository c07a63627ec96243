# SPDX-License-Identifier: Apache-2.0
"""Built-in pickers, one file each: they turn the candidates' totals into a short list, the preferred first.

Every docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin. The list's length is
`maxNumOfEndpoints` (default 1; zero and less mean 1), never more than there are candidates.
"""
