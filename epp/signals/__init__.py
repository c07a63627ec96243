# SPDX-License-Identifier: Apache-2.0
"""What endpoints say of themselves: their metrics pages, read all the time. Begin with `scraper`."""
