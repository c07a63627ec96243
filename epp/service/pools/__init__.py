# SPDX-License-Identifier: Apache-2.0
"""Many pools in one process: which there are, which one a stream is for, what each is configured with."""
