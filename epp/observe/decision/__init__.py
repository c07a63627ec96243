# SPDX-License-Identifier: Apache-2.0
"""Records of decisions: the ring, the log line, the file and its reader."""
