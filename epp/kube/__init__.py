# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API, as far as a picker needs it: read, watch, and a few writes, by its REST interface.

    access        how to reach the server and who we are: find_access
      kubeconfig  files, merged; execplugin: credentials from a program
      credentials tokens and where they are renewed
      tls         contexts, renewed with their files
    api           read, list, watch, create, replace, served
      sending     one HTTP session, errors of one line
      pages       one page of a list -> objects
      watch       a watch's bytes -> events, without a socket
      answers     refusals -> errors
    reflector     list, then watch, for ever; backoff: how long to wait in between
    selector      label selectors
    resource, objects, errors: the kinds, the fields we read of them, what goes wrong

Only `sending` knows aiohttp, and loads it with the first request.
"""
