# SPDX-License-Identifier: Apache-2.0
"""Where endpoints come from: the command line (`flags`), a file that is followed (`file`), or Kubernetes."""
