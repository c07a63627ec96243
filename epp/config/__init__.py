# SPDX-License-Identifier: Apache-2.0
"""EndpointPickerConfig: from the text of any release to a checked `Configuration`, and from there to plugin objects.

findings       mistakes, warnings and notes, each with its line
document       YAML or JSON text -> nodes that know their lines
typed          nodes -> dataclasses, every mistake collected
schema         the fields of the document, of every release
catalog        plugin type -> what it is (built in, entry points, plugin files)
load           the pipeline: decode, declare, complete, check -> Configuration
build          Configuration -> plugin objects, sorted by the place where they act
reload         watch a file, keep the last good configuration
check          the command `epp check`
"""
