"""Transports, authentications, ciphering and frame sizes in combination, each through the head-end's own line and
collector against a meter on a real socket or terminal: clock, registers, a day of load profile, clock set, supply
switched off and on. Everything read equals what the simulated meter truly is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headend.model import Outcome, ReadKind, Status
from headend.protocols.dlms import change_clock, switch
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings
from simulators.dlms_spec import AUTHENTICATIONS, PUBLIC, DlmsClient, DlmsSpec
from tests.dlms_ports_kit import CURVE, QUANTITIES, SECRETS, STEP, TITLE, TRANSPORTS, Rig, kwh, rig

CIPHERS = (
    ("none", "service-glo"),
    *product(
        ("authenticated", "encrypted", "authenticated-encrypted"),
        ("general-glo", "service-glo", "general-ded", "service-ded"),
    ),
)
FRAMES = tuple(product((128, 512, 2030), (1, 7)))
PDUS = (128, 1024, 65535)
FAST_S = 40  # the meter's clock


class Way(NamedTuple):
    """One combination. frames: longest information field and window of HDLC."""

    transport: str
    authentication: str
    cipher: tuple[str, str]
    frames: tuple[int, int]
    pdu: int

    def __str__(self) -> str:
        policy, ciphering = self.cipher
        link = f"-{self.frames[0]}x{self.frames[1]}" if self.transport.startswith("hdlc") else ""
        cipher = policy if policy == "none" else f"{ciphering}-{policy}"
        return f"{self.transport}{link}-{self.authentication}-{cipher}-{self.pdu}"


FACTORS: tuple[Sequence[Any], ...] = (TRANSPORTS, AUTHENTICATIONS, CIPHERS, FRAMES, PDUS)


def ways() -> Iterator[Way]:
    """All of them; the wrapper has no frames."""
    for values in product(*FACTORS):
        way = Way(*values)
        if way.transport.startswith("hdlc") or way.frames == FRAMES[0]:
            yield way


def pairs_of(way: Way) -> set[tuple[int, Any, int, Any]]:
    """Every two factors and their values."""
    at = [n for n in range(len(way)) if n != 3 or way.transport.startswith("hdlc")]
    return {(a, way[a], b, way[b]) for a, b in combinations(at, 2)}


def pairwise() -> list[Way]:
    """A choice in which every two values stand together once at least: the best of what is left, again and again."""
    left = set().union(*(pairs_of(way) for way in ways()))
    rest = list(ways())
    chosen = []
    while left:
        best = max(rest, key=lambda way: len(pairs_of(way) & left))
        chosen.append(best)
        left -= pairs_of(best)
    return chosen


CHOSEN = pairwise()


def client_of(way: Way, sap: int = 1) -> DlmsClient:
    return DlmsClient(sap, way.authentication, SECRETS["password"], way.cipher[0])


def spec_of(way: Way, **over: Any) -> DlmsSpec:
    """The meter of a combination."""
    return DlmsSpec(
        **{
            "clients": (PUBLIC, client_of(way)),
            "encryption_key": SECRETS["encryption_key"],
            "authentication_key": SECRETS["authentication_key"],
            "clock_error_s": FAST_S,
            "max_pdu": way.pdu,
            "max_info": way.frames[0],
            "window": way.frames[1],
            **over,
        }
    )


def settings_of(way: Way, client: int = 1) -> DlmsSettings:
    """What the head-end is told of it."""
    info, window = way.frames
    return DlmsSettings(
        interface="hdlc" if way.transport.startswith("hdlc") else "wrapper",
        client=client,
        authentication=way.authentication,  # type: ignore[arg-type]
        policy=way.cipher[0],  # type: ignore[arg-type]
        ciphering=way.cipher[1],  # type: ignore[arg-type]
        client_title=TITLE,
        max_pdu=way.pdu,
        max_info_tx=info,
        max_info_rx=info,
        window_tx=window,
        window_rx=window,
        profile=DlmsProfile(),
    )


def values(outcome: Outcome) -> dict[str, Decimal]:
    assert outcome.status is Status.OK, (outcome.status, outcome.detail)
    return {reading.quantity: reading.value for reading in outcome.readings}


def check_curve(bench: Rig, number: int, outcome: Outcome) -> None:
    """Each point is what the counter was when the meter's clock showed its time."""
    assert outcome.status is Status.OK, (outcome.status, outcome.detail)
    sim = bench.sims[number]
    expected = []
    at = CURVE.start
    while at < CURVE.end:
        expected.append((at, kwh(sim, sim.clock.instant(int(at.timestamp())))))
        at += STEP
    assert len(expected) == 96
    assert [(reading.at, reading.value) for reading in outcome.readings] == expected


async def visit(bench: Rig, number: int = 0) -> None:
    """All that is done with a meter."""
    sim, meter, access = bench.sims[number], bench.meters[number], bench.accesses[number]
    found = values(await bench.read(number, ReadKind.CLOCK, "clock_offset_s"))
    assert found == {"clock_offset_s": Decimal(FAST_S)}
    found = values(await bench.read(number, ReadKind.REGISTERS, *QUANTITIES))
    assert found["import_kwh"] == kwh(sim, int(bench.now[0]))
    assert set(found) == {*QUANTITIES, "clock_offset_s"}
    assert 200 < found["voltage_v_a"] < 250
    check_curve(bench, number, await bench.read(number, ReadKind.CURVE, "import_kwh", window=CURVE))
    change = await bench.line.run(change_clock(meter, bench.clock, access))
    assert (change.before_s, change.after_s, sim.clock.error_s) == (FAST_S, 0, 0)
    for order, on in (("disconnect", False), ("reconnect", True)):
        state = await bench.line.run(switch(meter, order, access))  # type: ignore[arg-type]
        assert state is not None
        assert (state.connected, sim.output_on) == (on, on)


def run(way: Way, folder: Path) -> None:
    async def main() -> None:
        async with rig(way.transport, [(spec_of(way), settings_of(way))], folder=folder) as bench:
            await visit(bench)
            heard = bench.sims[0].heard
            assert (heard["block"] > 0) == (way.pdu < 4096)
            assert bench.line.stats.timeouts == 0
            assert heard["get"] < 20  # lists

    asyncio.run(main())


def test_the_choice_holds_every_pair() -> None:
    everything = set().union(*(pairs_of(way) for way in ways()))
    assert set().union(*(pairs_of(way) for way in CHOSEN)) == everything
    assert len(list(ways())) == 3276
    assert len(CHOSEN) < 110


@pytest.mark.parametrize("way", CHOSEN, ids=str)
def test_everything_works_in_every_pair_of_ways(way: Way, tmp_path: Path) -> None:
    run(way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("authentication", AUTHENTICATIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_everything_works_in_every_way(transport: str, authentication: str, tmp_path: Path) -> None:
    mine = [way for way in ways() if (way.transport, way.authentication) == (transport, authentication)]
    for number, way in enumerate(mine):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            run(way, folder)
        except AssertionError as error:
            raise AssertionError(f"{way}: {error}") from error


# -- several on one line -----------------------------------------------------------------------------------------


SHARED = Way("hdlc-pty", "hls-gmac", ("authenticated-encrypted", "general-glo"), (128, 7), 1024)


def test_meters_of_different_kinds_share_a_line(tmp_path: Path) -> None:
    kinds = [
        SHARED,
        SHARED._replace(authentication="lls", cipher=("none", "service-glo"), frames=(2030, 1)),
        SHARED._replace(authentication="hls-sha256", cipher=("encrypted", "service-ded"), pdu=128),
        SHARED._replace(authentication="none", cipher=("none", "service-glo"), frames=(512, 7), pdu=65535),
    ]
    specs = [spec_of(kind, serial=str(40_000_001 + n), physical=20 + n) for n, kind in enumerate(kinds)]
    pairs = [(spec, settings_of(kind)) for spec, kind in zip(specs, kinds, strict=True)]

    async def main() -> None:
        async with rig("hdlc-pty", pairs, folder=tmp_path) as bench:
            assert len({sim.imported(int(bench.now[0])) for sim in bench.sims}) == 4
            await asyncio.gather(*(visit(bench, number) for number in range(4)))  # all at once: the line takes turns
            assert (bench.line.stats.timeouts, bench.line.stats.opened) == (0, 1)

    asyncio.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_clients_of_one_meter(transport: str, tmp_path: Path) -> None:
    """The public client may read the clock and nothing else; what it may not read is told so, value by value."""
    way = SHARED._replace(transport=transport)
    spec = spec_of(way)
    plain = way._replace(authentication="none", cipher=("none", "service-glo"))
    pairs = [(spec, settings_of(way)), (spec, settings_of(plain, 16))]

    async def main() -> None:
        async with rig(transport, pairs, folder=tmp_path) as bench:
            for _ in range(2):
                refused = await bench.read(1, ReadKind.REGISTERS, "import_kwh")
                assert [fault.quantity for fault in refused.faults] == ["import_kwh"]
                found = values(await bench.read(1, ReadKind.CLOCK, "clock_offset_s"))
                assert found == {"clock_offset_s": Decimal(bench.sims[0].clock.error_s)}
                check_curve(bench, 0, await bench.read(0, ReadKind.CURVE, "import_kwh", window=CURVE))
            await visit(bench)
            assert bench.line.stats.timeouts == 0

    asyncio.run(main())


def test_the_counter_is_read_with_the_public_client_first(tmp_path: Path) -> None:
    """A head-end that lost its counters goes on above what the meter has seen, and is heard at once."""
    way = SHARED._replace(transport="hdlc-tcp")
    spec = spec_of(way, client_counters=((1, 70_000),))
    settings = replace(settings_of(way), counter_object="0.0.43.1.0.255", counter_sync="always")

    async def main() -> None:
        async with rig("hdlc-tcp", [(spec, settings)], folder=tmp_path) as bench:
            await visit(bench)
            assert bench.accesses[0].counter("tx").value > 70_000

    asyncio.run(main())
