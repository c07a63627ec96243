# SPDX-License-Identifier: Apache-2.0
"""Envoy's external processing protocol for Python applications, over any transport.

Implement `Handler` (one per HTTP request) and give `service(open_handler)` to a gRPC transport under `PATH`:

    class Greeter:
        def request(self, request):
            return Route(set_headers=[("x-hello", b"world")])
        def response_headers(self, headers, end):
            return ()
        def response_body(self, chunk, end):
            pass
        def response_told(self):
            return False
        def response_end(self):
            return {}
        def closed(self, end):
            pass

    services = {PATH: service(Greeter)}

`Exchange` is the protocol without sockets or clocks; `Driver` ties an exchange to a stream. Every body mode of Envoy
is answered as that mode asks; the handler does not see the difference, except that NONE and STREAMED show it no body.
"""

from epp.extproc.driver import MESSAGE_OVERHEAD_BYTES, NAME, PATH, Driver, Outlet, Services, service
from epp.extproc.exchange import Exchange
from epp.extproc.handler import BodyMode, End, Handler, HeaderList, HttpRequest, Immediate, Outcome, Route, Watch

__all__ = [
    "MESSAGE_OVERHEAD_BYTES",
    "NAME",
    "PATH",
    "BodyMode",
    "Driver",
    "End",
    "Exchange",
    "Handler",
    "HeaderList",
    "HttpRequest",
    "Immediate",
    "Outcome",
    "Outlet",
    "Route",
    "Services",
    "Watch",
    "service",
]
