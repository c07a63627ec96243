# SPDX-License-Identifier: Apache-2.0
"""What answers cost in tokens: the plugin `llm-request-costs`, and the rules of costs, which need no plugin.

Every plugin's docstring says, in this order: Formula, Range, Reads, Cost, Without data, Origin.
"""
