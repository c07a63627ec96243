# SPDX-License-Identifier: Apache-2.0
"""From what a configuration assembled, and the flags, to what the rooms are given.

One `Guarded` per plugin instance, shared by every place where it acts, so that its failures are counted together.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from functools import partial
from typing import Any

from epp.config.build import Assembly
from epp.config.configuration import Configuration, Origin
from epp.config.plan import auto_response_phase
from epp.contract.endpoints import Clock, Endpoint
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.prefix import PREFIX_MATCH, PrefixMatch
from epp.contract.requests import DataKey
from epp.contract.signals import Sample
from epp.director import Plan, Settings
from epp.director.unwatched import Unwatched
from epp.endpoints.pool import Pool
from epp.extproc import Watch
from epp.observe.decision.file import DecisionLog
from epp.observe.decision.line import LineMaker
from epp.observe.recorder import Recorder
from epp.prefix.tracker import PrefixTracker
from epp.requests.parser import ANTHROPIC, OPENAI, Parser
from epp.scheduling.guard import Guarded
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler
from epp.service.engines import engines_of
from epp.service.flags.options import Options
from epp.signals.poll.scraper import Scraper
from epp.signals.poll.target import Record
from epp.signals.settings import ScrapeSettings
from epp.transport.tls import TlsSource

_WATCHES = {"full": Watch.BODY, "headers": Watch.HEADERS, "release": Watch.NOTHING}
WATCHED = {
    Watch.BODY: "full, they are followed to their end",
    Watch.HEADERS: "headers, they are followed to their headers; Envoy's access log or an estimate tells their end",
    Watch.NOTHING: "release, they are not followed; Envoy's access log or an estimate tells their end",
}
"""What is said of responses at the start."""


def plan_of(assembly: Assembly, clock: Clock, watch: Watch = Watch.BODY) -> Plan:
    """What the director needs of a configuration; `watch` is how much of responses."""
    guards = {name: Guarded(name, made, clock) for name, made in assembly.objects.items()}

    def guarded(named: Any) -> Guarded[Any]:
        return guards[named.name]

    profiles = [
        Profile(
            profile.name,
            [guarded(f) for f in profile.filters],
            [(guarded(s), s.weight) for s in profile.scorers],
            guarded(profile.picker),
        )
        for profile in assembly.profiles
    ]
    return Plan(
        scheduler=Scheduler(profiles, guarded(assembly.handler), clock),
        parser=_parser(assembly.configuration),
        producers=[guarded(p) for p in assembly.producers],
        routed_hooks=[guarded(h) for h in assembly.routed_hooks],
        done_hooks=[guarded(h) for h in assembly.done_hooks],
        prefix_key=_prefix_key(assembly),
        plugins=tuple(guards.values()),
        watch=watch,
    )


def watch_of(options: Options, assembly: Assembly) -> Watch:
    """How much of responses --response-phase asks for."""
    phase = options.response_phase
    if phase != "auto":
        return _WATCHES[phase]
    needed = _WATCHES[auto_response_phase(assembly.reads)]
    return max(needed, Watch.HEADERS) if options.emit_decision_header else needed


def scraped_reads(assembly: Assembly, plan: Plan) -> Reads:
    """What metrics pages are read for. Where they are read at all, the counts that unwatched requests are compared
    with are read too."""
    reads = assembly.reads
    if plan.watch is not Watch.BODY and reads & SCRAPED:
        reads |= Reads.WAITING | Reads.RUNNING
    return reads


def recorded_by(pool: Pool, unwatched: Unwatched) -> Record:
    """Where samples go: to the pool, and to what compares them with the unwatched requests."""

    def record(endpoint: Endpoint, sample: Sample) -> bool:
        known = pool.record(endpoint, sample)
        if known:
            unwatched.sampled(endpoint, sample)
        return known

    return record


def settings_of(options: Options) -> Settings:
    """What flags decide about every request."""
    return Settings(
        destination_header=options.destination_endpoint_hint_key,
        metadata_namespace=options.destination_endpoint_hint_metadata_namespace,
        body_limit_bytes=options.max_body_bytes,
        subset_filter=not options.disable_endpoint_subset_filter,
        echo_headers=options.echo_headers,
        emit_scores=options.emit_endpoint_scores,
        emit_decision=options.emit_decision_header,
    )


def decision_log_of(options: Options, clock: Clock) -> DecisionLog | None:
    """The decision log that the flags ask for. Raises `StartError` when its file cannot be written."""
    if options.decision_log is None:
        return None
    return DecisionLog(
        options.decision_log,
        LineMaker(run=secrets.token_hex(8), unix_at_zero_s=time.time() - clock()),
        max_bytes=options.decision_log_max_bytes,
        older_files=options.decision_log_files,
        hash_key=secrets.token_bytes(32) if options.decision_log_prefix_hashes else None,
    )


def admin_tls(options: Options) -> TlsSource | None:
    """The certificate of the metrics port; None for plain HTTP. Raises `StartError` when it cannot be used."""
    if options.metrics_cert_dir is None:
        return None
    return TlsSource(
        options.metrics_cert_dir,
        min_version=options.tls_min_version,
        cipher_suites=options.tls_cipher_suites,
        protocols=("http/1.1",),
        client_ca_file=options.metrics_client_ca_file,
    )


def scrape_settings_of(options: Options, configuration: Configuration) -> ScrapeSettings:
    """How metrics pages are read: the flags, and over them what the configuration declares."""
    settings = ScrapeSettings(
        interval_s=options.refresh_metrics_interval_s,
        idle_interval_s=options.metrics_idle_interval_s,
        loop_share=options.metrics_max_loop_share,
        filtered=options.metrics_filter,
        scheme=options.model_server_metrics_scheme,
        path=options.model_server_metrics_path,
        port=options.model_server_metrics_port,
        verify_tls=not options.model_server_metrics_https_insecure_skip_verify,
        engines=engines_of(options, configuration),
    )
    source = configuration.of_type("metrics-data-source")
    if source is None or source.origin is not Origin.GIVEN:
        return settings
    given = source.parameters
    return replace(
        settings,
        interval_s=given.interval_s or settings.interval_s,
        idle_interval_s=given.idle_interval_s or settings.idle_interval_s,
        scheme=given.scheme if given.scheme != "http" else settings.scheme,
        path=given.path if given.path != "/metrics" else settings.path,
        port=given.port or settings.port,
        verify_tls=settings.verify_tls or not given.insecureSkipVerify,
        ca_file=given.caCertPath,
        client_cert_file=given.clientCertPath,
        client_key_file=given.clientKeyPath,
    )


def observe(recorder: Recorder, assembly: Assembly, plan: Plan, scraper: Scraper) -> None:
    """Let the metrics page show what the rooms in force count. Read from the admin thread, so only plain reads."""
    for instance in assembly.configuration.instances:
        tracker = getattr(assembly.objects[instance.name], "tracker", None)
        if isinstance(tracker, PrefixTracker):
            recorder.follow_prefix(tracker.key, instance.spec.type, partial(len, tracker.index))
    types = {instance.name: instance.spec.type for instance in assembly.configuration.instances}
    plan.scheduler.follow(lambda point, name: recorder.metrics.plugin_duration(point, types[name], name).observe)
    recorder.time_next = plan.scheduler.time_next
    recorder.plugin_errors = lambda: {g.name: float(g.errors) for g in plan.plugins}
    recorder.scrape_failures = lambda: {
        state.endpoint.id: float(sum(state.counts.failures.values())) for state in list(scraper.states())
    }
    recorder.pool.idle_interval_s = scraper.settings.idle_interval_s
    recorder.scraping.figures = scraper.figures
    recorder.poll_errors = lambda: {"metrics-data-source": float(sum(scraper.counts.failures.values()))}


def _parser(configuration: Configuration) -> Parser:
    types = {configuration.instance(name).spec.type for name in configuration.parsers}
    if configuration.parsers_origin is Origin.DEFAULT:
        return Parser()
    readers = {
        **(OPENAI if "openai-parser" in types else {}),
        **(ANTHROPIC if "anthropic-parser" in types else {}),
    }
    return Parser(readers, opaque_allowed="passthrough-parser" in types)


def _prefix_key(assembly: Assembly) -> DataKey[PrefixMatch]:
    """Whose match tells a request's uncached tokens: the default producer's, else the first index there is."""
    trackers = [getattr(producer.object, "tracker", None) for producer in assembly.producers]
    keys = [tracker.key for tracker in trackers if isinstance(tracker, PrefixTracker)]
    return PREFIX_MATCH if not keys or PREFIX_MATCH in keys else keys[0]
