# SPDX-License-Identifier: Apache-2.0
"""One soak: start everything, let the load run while the scenario does its worst, stop, and say what was found.

clients -> Envoy "tls"   -> pods 1..6       each Envoy asks a picker of its own; both pickers read one file of
        -> Envoy "plain" ->                 endpoints, which is rewritten twice a second
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.soak.ledger import Ledger, Lost
from tests.soak.load import Clients
from tests.soak.parts import MODEL, Certificate, EndpointsFile, Gateway, Pods, make_gateway
from tests.soak.scenario import HARMLESS, Event, plan
from tests.soak.verdict import Findings
from tests.soak.watch import IN_FLIGHT, Watch, look, sums

PODS = 6
FEWEST_LISTED = 4
REWRITE_S = 0.5
LOOK_S = 0.5
SETTLE_S = 10.0


@dataclass(frozen=True)
class Settings:
    """`connections` and `rate_per_s` are of both gateways together; `stop_s` is the length of a SIGSTOP."""

    seconds: float
    seed: int
    connections: int = 48
    rate_per_s: float = 120.0
    stop_s: float = 5.0
    rotate_s: float = 7.0


@dataclass
class Soak:
    """Make it on the loop that runs it; `folder` takes the files of the run."""

    settings: Settings
    folder: Path
    say: Callable[[str], None]
    ledger: Ledger = field(default_factory=Ledger)
    watches: dict[str, Watch] = field(default_factory=dict)
    _began_s: float = field(default_factory=time.monotonic)

    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began_s

    async def run(self) -> Findings:
        """The whole of it."""
        rng = random.Random(self.settings.seed)
        certificate_folder = self.folder / "certificate"
        certificate_folder.mkdir()
        certificate = Certificate(certificate_folder)
        file = EndpointsFile(self.folder / "endpoints.json")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            pods = Pods(PODS, rng, session)
            file.write(pods.addresses)
            gateways = self._gateways(rng, file, certificate)
            try:
                await asyncio.gather(*(pods.start(number) for number in range(PODS)))
                await asyncio.gather(*(gateway.start(session) for gateway in gateways))
                self.say(f"{PODS} pods, gateways {', '.join(f'{g.name} on {g.url}' for g in gateways)}")
                stage = _Stage(self, session, pods, gateways, file, certificate, rng)
                return await stage.play()
            finally:
                await asyncio.gather(*(gateway.stop() for gateway in gateways))
                await pods.stop()

    def _gateways(self, rng: random.Random, file: EndpointsFile, certificate: Certificate) -> list[Gateway]:
        taken: list[int] = []
        flags = ["--endpoints-file", str(file.path)]
        secure = [*flags, "--cert-path", str(certificate.folder), "--enable-cert-reload"]
        return [
            make_gateway("tls", True, self.folder, secure, rng, taken),
            make_gateway("plain", False, self.folder, flags, rng, taken),
        ]


@dataclass
class _Stage:
    """Everything runs; the scenario is played on it."""

    soak: Soak
    session: aiohttp.ClientSession
    pods: Pods
    gateways: list[Gateway]
    file: EndpointsFile
    certificate: Certificate
    rng: random.Random
    played: list[Event] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _turns: dict[int | str, asyncio.Lock] = field(default_factory=dict)

    async def play(self) -> Findings:
        soak, settings = self.soak, self.soak.settings
        soak._began_s = time.monotonic()
        clients = [self._clients(gateway) for gateway in self.gateways]
        working = [asyncio.ensure_future(client.work()) for client in clients]
        beside = [self._rewrite(), self._rotate(), *(self._watch(gateway) for gateway in self.gateways)]
        background = [asyncio.ensure_future(work) for work in beside]
        events = plan(settings.seed, settings.seconds, PODS, tuple(g.name for g in self.gateways), settings.stop_s)
        acting = asyncio.ensure_future(self._act(events))
        await asyncio.sleep(settings.seconds)
        await acting
        for client in clients:
            client.stop()
        await asyncio.gather(*working)
        for task in background:
            task.cancel()
        ended = await asyncio.gather(*background, return_exceptions=True)
        self.failures += [repr(end) for end in ended if not isinstance(end, asyncio.CancelledError)]
        left = await self._settle()
        self._read_access_logs()
        explained, strange = soak.ledger.attribute()
        return Findings(
            seconds=settings.seconds,
            clients={client.gateway: client.counts for client in clients},
            latencies_s=sorted(latency for client in clients for latency in client.latencies_s),
            events=[event.kind for event in self.played],
            explained=explained,
            strange=strange,
            left=left,
            watches=soak.watches,
            disturbed=soak.ledger.disturbed,
            complaints={gateway.name: gateway.lines for gateway in self.gateways},
            failures=self.failures,
            exit_codes=await self._end_pickers(),
        )

    def _clients(self, gateway: Gateway) -> Clients:
        soak, settings = self.soak, self.soak.settings
        share = len(self.gateways)
        return Clients(
            gateway=gateway.name,
            url=gateway.url,
            model=MODEL,
            ledger=soak.ledger,
            now_s=soak.now_s,
            rng=random.Random(self.rng.random()),
            connections=settings.connections // share,
            rate_per_s=settings.rate_per_s / share,
        )

    async def _rewrite(self) -> None:
        while True:
            listed = self.rng.sample(self.pods.addresses, self.rng.randint(FEWEST_LISTED, PODS))
            self.file.write(listed)
            await asyncio.sleep(REWRITE_S)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(self.soak.settings.rotate_s)
            self.certificate.rotate()

    async def _watch(self, gateway: Gateway) -> None:
        watch = self.soak.watches.setdefault(gateway.name, Watch())
        while True:
            await asyncio.sleep(LOOK_S)
            # A picker that is stopped or away gives no answer.
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with asyncio.timeout(10):
                    page = await gateway.metrics(self.session)
                assert gateway.picker is not None
                watch.readings.append(look(self.soak.now_s(), gateway.picker.pid, page))

    async def _act(self, events: list[Event]) -> None:
        acts = []
        for event in events:
            await asyncio.sleep(max(0.0, event.at_s - self.soak.now_s()))
            self.soak.say(f"{self.soak.now_s():7.1f} s  {event.kind} {event.target} for {event.for_s:.1f} s")
            self.played.append(event)
            acts.append(asyncio.ensure_future(self._one(event)))
        await asyncio.gather(*acts)

    async def _one(self, event: Event) -> None:
        # On a busy machine something takes long to come back: what is next for it waits.
        async with self._turns.setdefault(event.target, asyncio.Lock()):
            try:
                if isinstance(event.target, str):
                    await self._disturb_picker(event, next(g for g in self.gateways if g.name == event.target))
                else:
                    await self._disturb_pod(event, event.target)
            except Exception as error:
                self.failures.append(f"{event.kind} of {event.target} at {event.at_s:.1f} s: {error!r}")

    async def _disturb_picker(self, event: Event, gateway: Gateway) -> None:
        window = self.soak.ledger.open(gateway.name, event.kind, self.soak.now_s())
        picker = gateway.picker
        assert picker is not None
        if event.kind == "stop":
            os.kill(picker.pid, signal.SIGSTOP)
            await asyncio.sleep(event.for_s)
            os.kill(picker.pid, signal.SIGCONT)
        else:
            picker.terminate() if event.kind == "terminate" else picker.kill()
            await picker.ended
            await gateway.start_picker(self.session)
        window.end_s = self.soak.now_s()

    async def _disturb_pod(self, event: Event, number: int) -> None:
        pods = self.pods
        if event.kind in HARMLESS:
            await pods.admin("PUT", number, f"faults/{event.kind}", {**event.parameters, "for_s": event.for_s})
            return
        window = self.soak.ledger.open(pods.addresses[number], event.kind, self.soak.now_s())
        if event.kind == "kill":
            await pods.kill(number)
            await asyncio.sleep(event.for_s)
            await pods.start(number)
        elif event.kind == "freeze":
            pods.signal(number, signal.SIGSTOP)
            await asyncio.sleep(event.for_s)
            pods.signal(number, signal.SIGCONT)
        else:
            await pods.admin("PUT", number, f"faults/{event.kind}", {**event.parameters, "for_s": event.for_s})
            await asyncio.sleep(event.for_s)
            await pods.answers(number)
        window.end_s = self.soak.now_s()

    async def _settle(self) -> dict[str, float]:
        """Wait until nothing is in flight any more; what still is, by where and name."""
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            left = {}
            for gateway in self.gateways:
                found = sums(await gateway.metrics(self.session))
                left |= {f"{gateway.name} {name}": found[name] for name in IN_FLIGHT if found.get(name)}
            for number, address in enumerate(self.pods.addresses):
                state = await self.pods.admin("GET", number, "state")
                counts = {"open": state["requests"]["open"], "held": state["engine"]["blocks"]["held"]}
                left |= {f"pod {address} {name}": float(count) for name, count in counts.items() if count}
            if not left or time.monotonic() > deadline_s:
                return left
            await asyncio.sleep(0.2)

    def _read_access_logs(self) -> None:
        """Say of each lost request where Envoy sent it, and what Envoy says of its end."""
        told: dict[str, dict[str, Any]] = {}
        for gateway in self.gateways:
            with suppress(FileNotFoundError):
                for line in gateway.access_log.read_bytes().splitlines():
                    with suppress(ValueError):
                        entry = orjson.loads(line)
                        told[entry["id"]] = entry
        ledger = self.soak.ledger
        ledger.lost = [_with_entry(lost, told.get(lost.id, {})) for lost in ledger.lost]

    async def _end_pickers(self) -> dict[str, int]:
        codes = {}
        for gateway in self.gateways:
            assert gateway.picker is not None
            gateway.picker.terminate()
            codes[gateway.name] = await gateway.picker.ended
        return codes


def _with_entry(lost: Lost, entry: dict[str, Any]) -> Lost:
    told = " ".join(str(entry[key]) for key in ("flags", "details") if entry.get(key))
    return replace(lost, pod=lost.pod or entry.get("host") or "", told=told)
