# SPDX-License-Identifier: Apache-2.0
"""Built-in saturation detectors, one file each: they say how full the pool is.

Every docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin.
"""
