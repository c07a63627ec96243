# SPDX-License-Identifier: Apache-2.0
"""An endpoint picker for LLM inference."""

__version__ = "0.1.0"
