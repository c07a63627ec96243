# SPDX-License-Identifier: Apache-2.0
"""What people see of the service: log lines, metrics, the last decisions."""
