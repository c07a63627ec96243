# SPDX-License-Identifier: Apache-2.0
"""Text to value. The tables of numbers were printed by Go 1.26's strconv, time and Kubernetes' resource package."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.service.flags import values
from epp.service.flags.ciphers import CIPHER_NAMES, GONE_NAMES, OPENSSL_NAMES, TLS13_NAMES
from epp.service.flags.values import Address

DURATIONS_NS = {
    "0": 0, "+0": 0, "-0": 0, "1s": 10**9, "1m30s": 90 * 10**9, "1h": 3600 * 10**9, "50ms": 5 * 10**7,
    ".5s": 5 * 10**8, "1.s": 10**9, "1.5h": 5400 * 10**9, "3h2m1s": 10921 * 10**9, "100us": 10**5, "100µs": 10**5,
    "100μs": 10**5, "7ns": 7, "-5s": -5 * 10**9, "+5s": 5 * 10**9, "1h1h": 7200 * 10**9, "0.0000000001s": 0,
    "1.0000000005s": 10**9, "0.9ns": 0, "9223372036854775807ns": 2**63 - 1,
    "2562047h47m16.854775807s": 2**63 - 1,
}  # fmt: skip
NO_DURATIONS = ["1", "", "s", ".s", "1 s", "1e3s", "1d", "١s", "1M", "1s ", "-", "9223372036854775808ns", "2562048h"]

INTS = {
    "0": 0, "9002": 9002, "010": 8, "0x10": 16, "0o17": 15, "0b11": 3, "1_000": 1000, "+5": 5, "-5": -5, "00": 0,
    "0x_1f": 31, "0X1F": 31,
}  # fmt: skip
NO_INTS = ["_1", "1__0", "0_8", "08", "", " 1", "٣", "1e3", "1\n", "9223372036854775808", "9" * 5000]

SIZES = {
    "10MiB": 10485760, "25MB": 25000000, "64Mi": 67108864, "4194304": 4194304, "1e3": 1000, "1E3": 1000, "1E": 10**18,
    "1Ei": 2**60, "0.5Gi": 536870912, "100m": 1, "100mB": 1, "1.5k": 1500, "1Kib": 1024, "+5": 5, ".5Gi": 536870912,
    "5.": 5, "5.Mi": 5242880, "1n": 1, "1u": 1, "1e-3": 1, "1E+2": 100, "9223372036854775807": 2**63 - 1,
    "8Ei": 2**63 - 1, "0": 0, "1kB": 1000, "10b": 10, "1T": 10**12, "1P": 10**15, "1Pi": 2**50, "1Ti": 2**40,
    "0.1Ki": 103, "1.1": 2, "1e30": 2**63 - 1,
}  # fmt: skip
NO_SIZES = ["1e", "1K", "1KB", "", "1 Mi", "1M1", "B", "b", "10BB", "1mi", "1gi", "1e3Ki", "１", "-1", ".", "9" * 200]


@pytest.mark.parametrize(("text", "ns"), DURATIONS_NS.items())
def test_durations(text: str, ns: int) -> None:
    assert values.parse_duration_s(text) == ns / 1e9


@pytest.mark.parametrize(("text", "value"), INTS.items())
def test_whole_numbers(text: str, value: int) -> None:
    assert values.parse_int(text) == value


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size_bytes(text) == size


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((values.parse_duration_s, text) for text in NO_DURATIONS),
        *((values.parse_int, text) for text in NO_INTS),
        *((values.parse_size_bytes, text) for text in NO_SIZES),
        *((values.parse_bool, text) for text in ("", "yes", "on", "tRUE", "2", "true ")),
    ],
)
def test_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        read(text)


def test_switches() -> None:
    assert all(values.parse_bool(text) for text in ("1", "t", "T", "TRUE", "true", "True"))
    assert not any(values.parse_bool(text) for text in ("0", "f", "F", "FALSE", "false", "False"))


def go_duration(ns: int) -> str:
    """Go's Duration.String for what is not negative."""
    if ns < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if ns >= size:
                return (
                    f"{ns // size}.{ns % size:0{len(str(size)) - 1}d}".rstrip("0").rstrip(".") + unit
                    if size > 1
                    else f"{ns}ns"
                )
        return "0s"
    minutes, rest = divmod(ns, 60 * 10**9)
    seconds = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


@given(st.integers(0, 10**16))
def test_durations_round_trip(ns: int) -> None:
    assert values.parse_duration_s(go_duration(ns)) == ns / 1e9


@given(st.text(alphabet="0123456789.+-eEnumkKMGTPEisBbh µx_", max_size=12))
def test_no_text_breaks_a_reader(text: str) -> None:
    for read in (values.parse_duration_s, values.parse_int, values.parse_size_bytes, values.parse_address):
        said = "must be "
        try:
            read(text)
        except ValueError as error:
            said = str(error)
        assert said.startswith("must be ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:8000", Address("10.0.0.1", 8000)),
        ("[::1]:80", Address("::1", 80)),
        ("[2001:DB8:0::1]:65535", Address("2001:db8::1", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert values.parse_address(text) == address
    assert values.parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "host:80", "::1:80", "[10.0.0.1]:80", "[::1]",
     "[fe80::1%eth0]:80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "10.0.0.1:+80", "10.0.0.256:80", "10.0.0.1:８0"],
)  # fmt: skip
def test_refused_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        values.parse_address(text)


@pytest.mark.parametrize(
    "text",
    ["vllm:num_requests_waiting", "m{}", "m{a=b}", 'm{a=b,c="d,e}"}', 'm{ a = "x\\"y" , b=c }', "", "  "],
)
def test_metrics(text: str) -> None:
    assert values.parse_metric(text) == text.strip()


@pytest.mark.parametrize("text", ["1m", "a b", "m{", "m}", "m{a}", "m{a=}", "m{a=b,}", "m{=b}", 'm{a="b}', "{a=b}"])
def test_refused_metrics(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a metric"):
        values.parse_metric(text)


@pytest.mark.parametrize(
    "text",
    ["", "app=vllm", "app==vllm", "app!=vllm", "app=", "app", "!app", "a in (b,c)", "a notin (b)",
     "llm-d.ai/role=decode", "a=b, c in (d, e),!f", "n>1", "n<3"],
)  # fmt: skip
def test_selectors(text: str) -> None:
    assert values.parse_selector(text) == text


@pytest.mark.parametrize(
    "text", ["a in", "a in b", "=b", "a=b,", ",", "a=b c", "-a=b", "a=-b", "a in (b", "n>x", "A/b/c"]
)
def test_refused_selectors(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a label selector"):
        values.parse_selector(text)


@pytest.mark.parametrize(("text", "level"), [("error", -1), ("Info", 0), ("DEBUG", 1), ("panic", -1), ("5", 5)])
def test_log_levels(text: str, level: int) -> None:
    assert values.parse_log_level(text) == level


def test_small_readers_refuse() -> None:
    for read, text in (
        (values.parse_log_level, "loud"),
        (values.parse_log_level, "-1"),
        (values.parse_header_name, ":path"),
        (values.parse_header_name, ""),
        (values.parse_url_path, "metrics"),
        (values.parse_url_path, "/a b"),
        (values.parse_bind_ip, "localhost"),
    ):
        with pytest.raises(ValueError, match=r"^must be "):
            read(text)
    assert values.parse_header_name("X-Gateway-Destination-Endpoint") == "x-gateway-destination-endpoint"
    assert values.parse_url_path("/metrics?name[]=a") == "/metrics?name[]=a"
    assert [values.parse_bind_ip(text) for text in ("", "[::1]", "::1", "127.0.0.1")] == ["", "::1", "::1", "127.0.0.1"]


@pytest.mark.parametrize("name", OPENSSL_NAMES.values())
def test_cipher_names_are_openssl_names(name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(name)
    assert name in {cipher["name"] for cipher in context.get_ciphers()}


def test_every_cipher_of_go_has_a_place() -> None:
    # 25 suites of crypto/tls, and the two short names of CHACHA20 that Kubernetes adds.
    assert len(set(CIPHER_NAMES)) == len(CIPHER_NAMES) == len(OPENSSL_NAMES) + len(TLS13_NAMES) + len(GONE_NAMES) == 27
