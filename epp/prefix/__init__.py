# SPDX-License-Identifier: Apache-2.0
"""Prefix caching: block hashes of prompts, and an index of which endpoint probably holds which blocks.

`plugin` is the face of this room; below it `tracker` follows requests, `index` answers for all endpoints, `table` is
one endpoint's blocks and `bank` the arrays they lie in.
"""
