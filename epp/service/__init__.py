# SPDX-License-Identifier: Apache-2.0
"""One process put together: flags, life cycle, health, admin HTTP. `process.py` shows how the rooms are joined."""
