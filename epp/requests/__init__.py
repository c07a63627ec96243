# SPDX-License-Identifier: Apache-2.0
"""From bytes to an `InferenceRequest`, and from a response's bytes to its `Usage`."""
