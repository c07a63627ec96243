# SPDX-License-Identifier: Apache-2.0
"""Where endpoints come from: the command line (`flags`) or a file that is followed (`file`)."""
