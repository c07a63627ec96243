# SPDX-License-Identifier: Apache-2.0
"""The scheduler cycle: a profile handler chooses profiles; a profile filters, scores and picks."""
