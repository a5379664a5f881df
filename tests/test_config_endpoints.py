"""Endpoints and serial formats as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.endpoints import BAUDS, Endpoint, LineSettings, parse_endpoint, parse_serial
from headend.errors import UsageError


@pytest.mark.parametrize(
    ("text", "serial", "endpoint"),
    [
        ("tcp://192.0.2.1:4001", "", Endpoint("tcp", host="192.0.2.1", port=4001)),
        ("tcp://Server.Example.org:1", "", Endpoint("tcp", host="server.example.org", port=1)),
        ("tcp://[2001:DB8:0::1]:65535", "", Endpoint("tcp", host="2001:db8::1", port=65535)),
        ("listen://0.0.0.0:9000", "", Endpoint("listen", host="0.0.0.0", port=9000)),
        ("listen://:9000", "", Endpoint("listen", host="", port=9000)),
        ("serial:/dev/ttyS1", "", Endpoint("serial", device="/dev/ttyS1")),
        (
            "serial:/dev/ttyUSB0",
            "9600 7o2",
            Endpoint("serial", device="/dev/ttyUSB0", baud=9600, bytesize=7, parity="O", stopbits=2),
        ),
    ],
)
def test_what_is_written_is_understood(text: str, serial: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text, serial) == endpoint


def test_serial_default_is_that_of_dlt645_2007() -> None:
    """DL/T 645-2007 clause 5: 2400 baud, 8 data bits, even parity, 1 stop bit."""
    endpoint = parse_endpoint("serial:/dev/ttyS1")
    assert (endpoint.baud, endpoint.bytesize, endpoint.parity, endpoint.stopbits) == (2400, 8, "E", 1)


@pytest.mark.parametrize(
    ("text", "serial", "message"),
    [
        (
            "4001",
            "",
            "'4001' is no endpoint -> write tcp://host:port, udp://host:port, serial:/dev/ttyS1, listen://host:port or mqtt://broker",
        ),
        ("tcp://host", "", "endpoint 'tcp://host' names no port -> write host:port, an IPv6 address as [::1]:port"),
        ("tcp://:4001", "", "endpoint 'tcp://:4001' names no host -> write tcp://host:port"),
        ("tcp://h:0", "", "port 0 of endpoint 'tcp://h:0' does not exist -> use a port from 1 to 65535"),
        ("tcp://h:65536", "", "port 65536 of endpoint 'tcp://h:65536' does not exist -> use a port from 1 to 65535"),
        (
            "tcp://1.2.3:4",
            "",
            "'1.2.3' in endpoint 'tcp://1.2.3:4' is no host -> use a host name, 192.0.2.1 or [2001:db8::1]",
        ),
        (
            "tcp://a..b:4",
            "",
            "'a..b' in endpoint 'tcp://a..b:4' is no host -> use a host name, 192.0.2.1 or [2001:db8::1]",
        ),
        ("serial:", "", "'' is no serial port -> write serial:/dev/ttyS1"),
        ("serial:///dev/ttyS1", "", "'///dev/ttyS1' is no serial port -> write serial:/dev/ttyS1"),
        (
            "tcp://h:1",
            "2400 8E1",
            "serial settings stand beside an endpoint that is no serial port -> remove them or write serial:/dev/...",
        ),
        (
            "serial:/dev/ttyS1",
            "2500 8E1",
            "'2500' is no speed a line runs at -> "
            "use one of 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200",
        ),
        (
            "serial:/dev/ttyS1",
            "2400 8X1",
            "'8X1' is no character format -> write data bits 7 or 8, parity N, E or O, stop bits 1 or 2, like 8E1",
        ),
        ("serial:/dev/ttyS1", "2400", "'2400' is no serial format -> write speed and character format, like 2400 8E1"),
    ],
)
def test_refusals(text: str, serial: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_endpoint(text, serial)
    assert str(caught.value) == message


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_is_parsed_or_refused(text: str, serial: str) -> None:
    for prefix in ("", "tcp://", "listen://", "serial:", "mqtt://"):
        try:
            endpoint = parse_endpoint(prefix + text, serial)
        except UsageError:
            continue
        assert parse_endpoint(str(endpoint), serial) == endpoint


@settings(deadline=None)
@given(st.sampled_from(BAUDS), st.sampled_from("78"), st.sampled_from("NEO"), st.sampled_from("12"))
def test_every_format_goes_round(baud: int, bits: str, parity: str, stop: str) -> None:
    assert parse_serial(f"{baud} {bits}{parity}{stop}") == (baud, int(bits), parity, int(stop))


@settings(deadline=None)
@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z]{2,5})?", fullmatch=True), st.integers(1, 65535))
def test_hosts_a_resolver_accepts(host: str, port: int) -> None:
    """What is accepted can be encoded for a resolver, so that connecting fails as a network, not as a text."""
    try:
        endpoint = parse_endpoint(f"tcp://{host}:{port}")
    except UsageError:
        assert host.replace(".", "").isdigit()
    else:
        assert endpoint.host.encode("idna").decode() == host


def test_line_settings_have_the_documented_defaults() -> None:
    line = LineSettings("east", parse_endpoint("tcp://h:1"))
    timing = (line.reply_s, line.gap_s, line.quiet_s, line.connect_s)
    assert timing == (2.0, 0.5, 0.05, 5.0)
    assert (line.registration, line.heartbeat, line.echo) == (b"", b"", False)
