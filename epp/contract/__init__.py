# SPDX-License-Identifier: Apache-2.0
"""What every room shares: values, Protocols and errors. Imports nothing of ours; `epp.api` is its public face."""
