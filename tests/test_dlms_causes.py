"""Every step at which a DLMS meter may refuse, hang up, fall silent or babble, and every wrong secret, counter and
address: the outcome names the cause, no secret is in it, and the line serves the next meter at once."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headend.errors import BadFrame, HeadendError, LineDown, NoAccess, NoAnswer, Refused
from headend.model import Cause, FrameRecord, Outcome, ReadKind, Status
from headend.protocols.dlms import change_clock, hdlc_link, switch
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings
from simulators.dlms_spec import FAIL_HOW, LLS_READER, PUBLIC, DlmsClient, DlmsQuirks, DlmsSpec
from tests.dlms_ports_kit import CURVE, QUANTITIES, SECRETS, TITLE, Rig, kwh, rig

REPLY_S = 0.8
COUNTER = "0.0.43.1.0.255"
MANAGER = DlmsClient(1, "hls-gmac", policy="authenticated-encrypted")
CIPHERED = DlmsSettings(
    client=1,
    authentication="hls-gmac",
    policy="authenticated-encrypted",
    client_title=TITLE,
    profile=DlmsProfile(),
    release="rlrq",
    rlrq_user_information=True,
    link_retries=1,
)
SPEC = DlmsSpec(
    clients=(PUBLIC, replace(LLS_READER, password=SECRETS["password"]), MANAGER),
    encryption_key=SECRETS["encryption_key"],
    authentication_key=SECRETS["authentication_key"],
    clock_error_s=40,
    max_pdu=256,
)
GOOD = replace(SPEC, serial="87654321", logical=2, physical=18)
TRANSPORTS = ("wrapper-tcp", "hdlc-tcp")
STATUS: Mapping[type[HeadendError], Status] = {
    NoAnswer: Status.NO_ANSWER,
    BadFrame: Status.BAD_FRAME,
    Refused: Status.REFUSED,
    NoAccess: Status.NO_ACCESS,
    LineDown: Status.LINE_DOWN,
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HDLC a meter that has nothing to say answers polls all the same: it may be busy, and is given time. Less
    of it here."""
    assert hdlc_link._MAX_BUSY_S == 10
    monkeypatch.setattr(hdlc_link, "_MAX_BUSY_S", 1.0)


def interface(transport: str, settings: DlmsSettings) -> DlmsSettings:
    return replace(settings, interface="hdlc" if transport.startswith("hdlc") else "wrapper")


def secret_free(*texts: object) -> None:
    """No secret stands in what is kept, as bytes or in hex."""
    for one in texts:
        shown = one.hex() if isinstance(one, bytes) else str(one)
        for secret in (*SECRETS.values(), *WRONG.values()):
            assert secret.hex() not in shown.lower()
            assert secret.decode("latin-1") not in str(one)
            assert repr(secret)[2:-1] not in str(one)


WRONG: Mapping[str, bytes] = {
    "password": b"wrong horse 4242",
    "encryption_key": bytes.fromhex("00112233445566778899AABBCCDDEEFF"),
    "authentication_key": bytes.fromhex("FFEEDDCCBBAA99887766554433221100"),
}


@dataclass
class Trial:
    """What became of one try: the outcome of a read, or the error of an order; and how long it took."""

    outcome: Outcome | None
    error: HeadendError | None
    frames: list[FrameRecord]
    seconds: float

    @property
    def detail(self) -> str:
        return self.outcome.detail if self.outcome is not None else str(self.error)

    @property
    def status(self) -> Status:
        """How the read ended, or how a read would that ends with such an error."""
        if self.outcome is not None:
            return self.outcome.status
        return next((status for kind, status in STATUS.items() if isinstance(self.error, kind)), Status.OK)


async def attempt(bench: Rig, what: str) -> Trial:
    """Read registers or the profile, set the clock or switch off."""
    started = time.monotonic()
    frames: list[FrameRecord] = []
    outcome: Outcome | None = None
    error: HeadendError | None = None
    meter, access = bench.meters[0], bench.accesses[0]
    try:
        if what == "set":
            await bench.line.run(change_clock(meter, bench.clock, access), frames)
        elif what == "action":
            await bench.line.run(switch(meter, "disconnect", access), frames)
        elif what == "block":
            outcome = await bench.read(0, ReadKind.CURVE, "import_kwh", window=CURVE)
        else:
            outcome = await bench.read(0, ReadKind.REGISTERS, *QUANTITIES)
    except HeadendError as caught:
        error = caught
    return Trial(outcome, error, frames, time.monotonic() - started)


def check_named(tried: Trial, status: Status, words: str) -> None:
    """The outcome, and every value in it, names the cause."""
    assert tried.status is status, (tried.status, tried.detail)
    assert re.search(words, tried.detail), tried.detail
    if tried.outcome is not None and status is not Status.OK:
        assert {fault.cause for fault in tried.outcome.faults} == {Cause[status.name]}
        assert {fault.quantity for fault in tried.outcome.faults} <= {*QUANTITIES}
        assert tried.outcome.faults
    secret_free(tried.detail, repr(tried.outcome), *(frame.data for frame in tried.frames))
    if tried.outcome is not None:
        secret_free(*(frame.data for frame in tried.outcome.frames))


async def check_neighbour(bench: Rig) -> None:
    """The meter beside is read at once, as if nothing had been; only a port that refused is let rest, 0.9 s."""
    started = time.monotonic()
    found = await bench.read(1, ReadKind.REGISTERS, "import_kwh")
    if "next try in" in found.detail:
        await asyncio.sleep(1.0)
        found = await bench.read(1, ReadKind.REGISTERS, "import_kwh")
    assert found.status is Status.OK, (found.status, found.detail)
    value = next(reading.value for reading in found.readings if reading.quantity == "import_kwh")
    assert value == kwh(bench.sims[1], int(bench.now[0]))
    assert time.monotonic() - started < 3


async def trial(
    transport: str,
    folder: Path,
    spec: DlmsSpec,
    settings: DlmsSettings,
    expected: tuple[Status, str],
    *,
    what: str = "read",
    secrets: Mapping[str, bytes] = SECRETS,
    again: tuple[Status, str] | None = None,
    most_s: float = 8.0,
    address: str = "",
) -> None:
    """One try that must end as expected within `most_s`, the meter beside, and where `again` says so another try."""
    pairs = [(spec, interface(transport, settings)), (GOOD, interface(transport, CIPHERED))]
    async with rig(transport, pairs, folder=folder, secrets=[secrets], reply_s=REPLY_S, gap_s=0.1) as bench:
        bench.meters[0] = replace(bench.meters[0], address=address or bench.meters[0].address)
        tried = await attempt(bench, what)
        check_named(tried, *expected)
        assert tried.seconds < most_s
        await check_neighbour(bench)
        if again is not None:
            check_named(await attempt(bench, what), *again)


# -- every step, every way to fail -------------------------------------------------------------------------------


STEPS = ("snrm", "aarq", "hls", "get", "block", "set", "action", "release")
WHERE = {"snrm": "link: ", "aarq": "association: ", "hls": "authentication: "}
SILENT = (Status.NO_ANSWER, "no answer")  # of an order: it may have been done
CLOSED = (Status.LINE_DOWN, "line L1 lost: the other side closed the connection")
ENDINGS: Mapping[tuple[str, str], tuple[Status, str]] = {
    ("snrm", "refuse"): (Status.REFUSED, "not connected .DM."),
    ("snrm", "garbage"): (Status.BAD_FRAME, "bytes came that make no whole frame"),
    ("snrm", "exception"): (Status.BAD_FRAME, "the meter rejects a frame"),
    ("aarq", "refuse"): (Status.REFUSED, "the meter refuses the association: no reason given"),
    ("aarq", "garbage"): (Status.BAD_FRAME, "the meter answered 60 with 55"),
    ("aarq", "exception"): (Status.REFUSED, "exception: service not allowed"),
    ("hls", "refuse"): (Status.NO_ACCESS, "does not accept our answer to its challenge"),
    ("hls", "exception"): (Status.NO_ACCESS, "does not accept our answer to its challenge"),
    ("block", "refuse"): (Status.REFUSED, "long get aborted"),
    **{(step, "refuse"): (Status.REFUSED, "temporary failure") for step in ("get", "set", "action")},
    **{(step, "exception"): (Status.REFUSED, "exception: ") for step in ("get", "block", "set", "action")},
    **{(step, "garbage"): (Status.BAD_FRAME, "answers with 55") for step in ("hls", "get", "block", "set", "action")},
}


def ending(step: str, how: str) -> tuple[Status, str]:
    if step == "release":  # everything was read before: a meter's bad manners take nothing back
        return Status.OK, ""
    status, words = SILENT if how == "silent" else CLOSED if how == "close" else ENDINGS[step, how]
    return status, f"^{WHERE.get(step, '')}.*{words}"


@pytest.mark.parametrize("how", FAIL_HOW)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_meter_that_fails_at_any_step(
    transport: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All steps at once, each on a line of its own: what counts is how long each takes, not how long all."""
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        await asyncio.gather(
            *(
                trial(
                    transport,
                    tmp_path,
                    replace(SPEC, quirks=DlmsQuirks(fail_at=step, fail_how=how)),
                    replace(CIPHERED, clock_set="time"),
                    ending(step, how),
                    what=step,
                )
                for step in STEPS
                if (transport, step) != ("wrapper-tcp", "snrm")
            )
        )

    asyncio.run(main())
    secret_free(caplog.text)


# -- wrong secrets, clients, addresses ---------------------------------------------------------------------------

LLS = replace(CIPHERED, client=32, authentication="lls", policy="none", client_title="", rlrq_user_information=False)
NO_KEY = (Status.NO_ACCESS, "association: encryption_key of the meter is not known -> put it into the vault")
PLAIN_HLS = replace(CIPHERED, policy="none", rlrq_user_information=False)


def hls(mechanism: str) -> tuple[DlmsSpec, DlmsSettings]:
    client = DlmsClient(1, mechanism, SECRETS["password"])
    settings = replace(PLAIN_HLS, authentication=mechanism)  # type: ignore[arg-type]
    return replace(SPEC, clients=(PUBLIC, client)), settings


def odd(**quirks: object) -> DlmsSpec:
    return replace(SPEC, quirks=DlmsQuirks(**quirks))  # type: ignore[arg-type]


def without(name: str) -> Mapping[str, bytes]:
    return {key: value for key, value in SECRETS.items() if key != name}


def wrong(name: str) -> Mapping[str, bytes]:
    return {**SECRETS, name: WRONG[name]}


NOT_PROVEN = "authentication: the meter does not accept our answer to its challenge"
BAD_MANNERS = {
    "exception": (Status.NO_ACCESS, "association: the meter can.t decipher what we send -> check encryption_key"),
    "close": (Status.LINE_DOWN, "association: line L1 lost"),
    "silent": (Status.NO_ANSWER, "association: .*no answer"),
}

Case = tuple[DlmsSpec, DlmsSettings, Mapping[str, bytes], tuple[Status, str]]

CASES: Mapping[str, Case] = {
    "password": (SPEC, LLS, wrong("password"), (Status.NO_ACCESS, "authentication failed -> check the meter.s pass")),
    "no password": (SPEC, LLS, {}, (Status.NO_ACCESS, "password of the meter is not known -> put it into the vault")),
    **{
        f"{mechanism} password": (*hls(mechanism), wrong("password"), (Status.NO_ACCESS, NOT_PROVEN))
        for mechanism in ("hls-md5", "hls-sha1", "hls-sha256")
    },
    **{
        f"{name}, {manner}": (odd(on_bad=manner), CIPHERED, wrong(name), ending)
        for name in ("encryption_key", "authentication_key")
        for manner, ending in BAD_MANNERS.items()
    },
    "no encryption_key": (SPEC, CIPHERED, without("encryption_key"), NO_KEY),
    "no authentication_key": (
        SPEC,
        CIPHERED,
        without("authentication_key"),
        (Status.NO_ACCESS, "authentication_key of the meter is not known"),
    ),
    "a short key": (
        SPEC,
        CIPHERED,
        {**SECRETS, "encryption_key": b"short"},
        (Status.NO_ACCESS, "encryption_key of the meter has 5 bytes, not 16"),
    ),
    "client": (SPEC, replace(CIPHERED, client=77), SECRETS, (Status.REFUSED, "refuses the association.*check client")),
    "mechanism": (
        SPEC,
        replace(CIPHERED, authentication="hls-md5"),
        SECRETS,
        (Status.NO_ACCESS, "authentication mechanism not recognised"),
    ),
    "no authentication": (
        SPEC,
        replace(CIPHERED, authentication="none"),
        SECRETS,
        (Status.NO_ACCESS, "authentication mechanism name required"),
    ),
    "no ciphering": (SPEC, PLAIN_HLS, SECRETS, (Status.NO_ACCESS, "application context not supported")),
    "client title": (
        odd(known_title="0102030405060708"),
        CIPHERED,
        SECRETS,
        (Status.NO_ACCESS, "client system title not recognised -> check client_title"),
    ),
    "meter title": (
        SPEC,
        replace(CIPHERED, meter_title="0102030405060708", check_title=True),
        SECRETS,
        (Status.NO_ACCESS, "the meter.s system title is 53494D0000BC614E, not 0102030405060708"),
    ),
    "the meter's proof": (odd(wrong_hls_reply=True), CIPHERED, SECRETS, (Status.NO_ACCESS, "does not prove")),
    "the meter's tag": (odd(wrong_tag=True), CIPHERED, SECRETS, (Status.NO_ACCESS, "does not pass its authentication")),
    "the meter's counter": (
        odd(counter_stuck=True),
        CIPHERED,
        SECRETS,
        (Status.NO_ACCESS, "the meter.s invocation counter 0 is not above 0"),
    ),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_wrong_secrets_clients_and_addresses(transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def one(case: Case) -> None:
        spec, settings, secrets, expected = case
        await trial(transport, tmp_path, spec, settings, expected, secrets=secrets)

    async def main() -> None:
        await asyncio.gather(*map(one, CASES.values()))

    asyncio.run(main())
    secret_free(caplog.text)


@pytest.mark.parametrize(
    ("transport", "address"), [("wrapper-tcp", "9"), ("hdlc-tcp", "9/17"), ("hdlc-tcp", "1/99"), ("hdlc-tcp", "9/99")]
)
def test_a_wrong_logical_or_physical_address(transport: str, address: str, tmp_path: Path) -> None:
    expected = (Status.NO_ANSWER, f"meter {address}, client 1: no answer -> check")
    asyncio.run(trial(transport, tmp_path, SPEC, CIPHERED, expected, address=address))


# -- invocation counters -----------------------------------------------------------------------------------------

OK = (Status.OK, "")
DOWN = (Status.LINE_DOWN, "association: line L1 lost")
MUTE = (Status.NO_ANSWER, "association: .*no answer")
REFUSED = (Status.NO_ACCESS, "the meter refuses our invocation counter -> set counter_object")
UNTOLD = (Status.REFUSED, "association: the meter answers with an exception")

# The meter's manner, whether its exception tells its counter, counter_sync: the first try, and the second one, with
# counter_object known and not.
COUNTERS: Mapping[tuple[str, bool, str], tuple[tuple[Status, str], ...]] = {
    ("exception", True, "refused"): (OK, OK, OK, OK),
    ("exception", True, "always"): (OK, OK, OK, OK),
    ("exception", True, "never"): (REFUSED, REFUSED, REFUSED, REFUSED),
    ("exception", False, "refused"): (OK, OK, UNTOLD, UNTOLD),
    ("exception", False, "always"): (OK, OK, UNTOLD, UNTOLD),
    ("exception", False, "never"): (UNTOLD, UNTOLD, UNTOLD, UNTOLD),
    ("close", True, "refused"): (DOWN, OK, DOWN, DOWN),
    ("close", True, "always"): (OK, OK, DOWN, DOWN),
    ("close", True, "never"): (DOWN, DOWN, DOWN, DOWN),
    ("silent", True, "refused"): (OK, OK, MUTE, MUTE),
    ("silent", True, "always"): (OK, OK, MUTE, MUTE),
    ("silent", True, "never"): (MUTE, MUTE, MUTE, MUTE),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_invocation_counter_that_is_behind(transport: str, tmp_path: Path) -> None:
    """Where it can be learnt, the read goes on above it; else the cause is named, and the line goes on."""

    async def one(key: tuple[str, bool, str], known: bool) -> None:
        manner, told, sync = key
        first, second = COUNTERS[key][:2] if known else COUNTERS[key][2:]
        spec = replace(odd(on_bad=manner, counter_in_exception=told), client_counters=((1, 5000),))
        settings = replace(CIPHERED, counter_object=COUNTER if known else "", counter_sync=sync)  # type: ignore[arg-type]
        await trial(transport, tmp_path, spec, settings, first, again=second)

    async def main() -> None:
        for known in (True, False):  # a dozen lines at once are enough for one loop
            await asyncio.gather(*(one(key, known) for key in COUNTERS))

    asyncio.run(main())
