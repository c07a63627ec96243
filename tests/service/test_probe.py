# SPDX-License-Identifier: Apache-2.0
"""`epp check --probe` against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import make_asgi_app

from epp.cli import main
from tests.signals.conftest import _serve as serve
from tests.signals.test_filtered import registry, vllm_like
from tests.signals.test_reader import make_certificate

CONFIG = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: kv-cache-utilization-scorer
  - pluginRef: max-score-picker
"""
PAGE = b"""\
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1.7e+09
"""


def answer(page: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(page), page)


@contextlib.asynccontextmanager
async def pages(*scripts: Any) -> AsyncIterator[list[int]]:
    """One server for each script; their ports."""
    async with contextlib.AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(serve(script))).port for script in scripts]


async def run(*argv: str) -> int:
    return await asyncio.to_thread(main, ["check", "--probe", *argv])


def endpoints(*ports: int) -> str:
    return "--endpoints=" + ",".join(f"127.0.0.1:{port}" for port in ports)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return str(path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_everything_is_there(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    targets: list[str] = []
    filtering = vllm_like(make_asgi_app(registry()), True, targets)
    async with pages(answer(PAGE), filtering) as ports:
        assert await run(config, endpoints(*ports)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("default/")}
    small = " ".join(lines[f"default/127.0.0.1-{ports[0]}"].split())
    assert "vllm (page)" in small
    assert "no: the page is small 2 3 25.0% 100 x 16 3 of 4" in small
    large = " ".join(lines[f"default/127.0.0.1-{ports[1]}"].split())
    assert "B by /metrics/?name[]= 2 3 25.0% 100 x 16 -" in large
    assert "The configuration reads: waiting, kv_utilization." in out
    assert out.endswith("2 of 2 endpoints say all that is read.\n")
    assert len(targets) == 3


async def test_what_is_read_and_missing_is_told_once_with_where_it_was_looked_for(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without_kv = answer(PAGE.replace(b"kv_cache_usage_perc", b"something"))
    without_running = answer(PAGE.replace(b"num_requests_running", b"something"))
    async with pages(without_kv, without_kv, without_running) as ports:
        assert await run(f"--config-file={config}", endpoints(*ports)) == 1
    out = capsys.readouterr().out
    causes = [line for line in out.splitlines() if "no usable kv_utilization" in line]
    names = ", ".join(f"default/127.0.0.1-{port}" for port in ports[:2])
    assert causes == [f"{names}: no usable kv_utilization (vllm:kv_cache_usage_perc or vllm:gpu_cache_usage_perc)"]
    # Running requests are read by nobody here, so that an endpoint without them is well.
    assert out.count("MISSING") == 2
    assert "1 of 3 endpoints say all that is read." in out


async def test_what_goes_wrong_is_one_line_each(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    scripts = (answer(b"", "404 Not Found"), answer(b"<html>\n"), b"SSH-2.0-x\r\n", silent, answer(PAGE))
    async with pages(*scripts) as ports:
        refused = free_port()
        assert await run(config, endpoints(*ports, refused), "--timeout=1", "--json") == 1
        told = json.loads(capsys.readouterr().out)
        assert await run(config, endpoints(*ports, refused), "--timeout=1") == 1
    errors = {entry["endpoint"].rpartition("-")[2]: entry["error"] for entry in told["endpoints"]}
    expected = [
        "the answer's status is 404, not 200; is the metrics path right?",
        "the page is of no engine known here (",
        "the answer is not HTTP/1.1: it starts with 'SSH-2.0-x",
        "no complete answer came within 1 s",
        None,
        "cannot connect: Connection refused",
    ]
    out = capsys.readouterr().out
    for port, error in zip((*ports, refused), expected, strict=True):
        if error is None:
            assert errors[str(port)] is None
            continue
        assert errors[str(port)].startswith(error)
        assert sum(error in line for line in out.splitlines()) == 1
    assert "Traceback" not in out
    assert told["ok"] is False
    assert "1 of 6 endpoints" in out


async def test_json_tells_every_signal(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with pages(answer(PAGE)) as ports:
        assert await run(config, endpoints(*ports), "--json", "--rows=1") == 0
    told = json.loads(capsys.readouterr().out)
    (entry,) = told["endpoints"]
    assert told["ok"] is True
    assert told["reads"] == ["waiting", "kv_utilization"]
    assert entry["signals"] == {
        "waiting": 2.0,
        "running": 3.0,
        "kv_utilization": 0.25,
        "block_size_tokens": 16.0,
        "num_blocks": 100.0,
        "lora": {"running": ["a", "b"], "waiting": ["c"], "max_adapters": 4},
    }
    assert (entry["engine"], entry["engine_from"], entry["tls"]) == ("vllm", "page", None)
    assert entry["page_bytes"] == len(PAGE)
    assert entry["whole_because"] == "the page is small"
    assert entry["missing"] == {}


async def test_many_endpoints_are_summed_up_with_the_wrong_ones_first(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pages(*[answer(PAGE)] * 6) as ports:
        refused = free_port()
        assert await run(config, endpoints(*ports, refused), "--rows=2", "--at-once=2") == 1
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("default/") and ": " not in line.partition("no:")[0]]
    assert len(rows) == 2
    assert rows[0].startswith(f"default/127.0.0.1-{refused}")
    assert "... and 5 more, 0 of them with something wrong; --rows shows more" in out


async def test_the_engine_is_taken_from_the_label(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = b"sglang:num_queue_reqs 1.0\nsglang:num_running_reqs 1.0\nsglang:token_usage 0.5\n"
    async with pages(answer(page)) as ports:
        listed = tmp_path / "endpoints.yaml"
        listed.write_text(
            f"endpoints:\n- name: a\n  address: 127.0.0.1\n  port: {ports[0]}\n"
            "  labels: {llm-d.ai/engine-type: sglang}\n"
        )
        assert await run(config, f"--endpoints-file={listed}", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert (entry["endpoint"], entry["engine"], entry["engine_from"]) == ("default/a", "sglang", "label")


async def test_a_label_of_no_engine_known_here_is_noted_once(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pages(answer(PAGE)) as ports:
        listed = tmp_path / "endpoints.yaml"
        pod = f"  address: 127.0.0.1\n  port: {ports[0]}\n  labels: {{llm-d.ai/engine-type: foo}}\n"
        listed.write_text(f"endpoints:\n- name: a\n{pod}")
        assert await run(config, f"--endpoints-file={listed}") == 0
        out = capsys.readouterr().out
        assert await run(config, f"--endpoints-file={listed}", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["endpoints"]
    note = "label llm-d.ai/engine-type is 'foo', which is no engine known here (vllm, sglang, "
    assert [line.startswith(f"default/a: {note}") for line in out.splitlines() if "'foo'" in line] == [True]
    assert "1 of 1 endpoints say all that is read." in out
    assert entry["note"].startswith(note)
    assert (entry["engine"], entry["engine_from"], entry["ok"]) == ("vllm", "page", True)


async def test_tls_is_told(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = make_certificate(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serve(answer(PAGE), tls=context) as server:
        given = (config, endpoints(server.port), "--model-server-metrics-scheme=https", "--json")
        assert await run(*given) == 0
        (entry,) = json.loads(capsys.readouterr().out)["endpoints"]
        assert entry["tls"] == "TLSv1.3"
        assert entry["url"].startswith("https://")
        assert await run(*given, "--model-server-metrics-https-insecure-skip-verify=false") == 1
    (entry,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert "TLS handshake failed" in entry["error"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 1, "there is nothing to probe: give --endpoints IP:PORT,... or --endpoints-file FILE"),
        (
            ["--endpoints-file=/nowhere/e.yaml"],
            1,
            "cannot be read: No such file or directory; give a readable YAML or JSON file",
        ),
        (["--endpoints=host:80"], 2, "--endpoints"),
        (["--rows=0"], 2, "'0' must be a whole number from 1 to 100000"),
        (["--at-once=x"], 2, "'x' must be a whole number"),
        (["--timeout=-1"], 2, "'-1' must be seconds, above 0 and at most 600"),
        (["--timeout=nan"], 2, "'nan' must be seconds"),
        (["--bogus"], 2, "unknown flag: --bogus"),
        (["--endpoints=127.0.0.1:1", "--model-server-metrics-scheme=ftp"], 2, "must be one of http, https"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--probe", *argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("epp: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_configuration_is_told_mistake_by_mistake(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("queue-scorer", "queue-scorrer"))
    assert main(["check", str(path), "--probe", "--endpoints=127.0.0.1:1", *(["--json"] if as_json else [])]) == 1
    out = capsys.readouterr().out
    assert "queue-scorrer" in out
    assert "Traceback" not in out
    if as_json:
        assert json.loads(out)["ok"] is False
