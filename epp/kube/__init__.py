# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API, as far as a picker needs it: read, watch, and a few writes, by its REST interface."""
