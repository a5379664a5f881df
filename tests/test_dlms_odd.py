"""DLMS meters that answer oddly but rightly, over real sockets: blocks that come again, an invoke id that never
changes, pushes in the middle."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from headend.access import memory_access
from headend.model import Outcome, Source, Status
from headend.protocols.dlms import hdlc_link
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsObject, DlmsPush, DlmsSettings
from simulators.dlms_spec import DlmsSpec
from tests.dlms_ports_kit import QUANTITIES, SECRETS, kwh, rig
from tests.test_dlms_causes import CIPHERED, TRANSPORTS, attempt, interface, odd


def visit(spec: DlmsSpec, settings: DlmsSettings, transport: str, folder: Path) -> list[Outcome]:
    """Registers and a day of profile."""

    async def main() -> list[Outcome]:
        async with rig(transport, [(spec, interface(transport, settings))], folder=folder, reply_s=1.0) as bench:
            outcomes = [(await attempt(bench, what)).outcome for what in ("read", "block")]
            now = int(bench.now[0])
            assert all(outcome is not None and outcome.status is Status.OK for outcome in outcomes), outcomes
            found = [outcome for outcome in outcomes if outcome is not None]
            values = {reading.quantity: reading.value for reading in found[0].readings}
            assert values["import_kwh"] == kwh(bench.sims[0], now)
            points = [reading for reading in found[1].readings if reading.source is Source.CURVE]
            assert len(points) == 96
            for point in points:
                assert point.value == kwh(bench.sims[0], bench.sims[0].clock.instant(int(point.at.timestamp())))
            return found

    return asyncio.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_old_blocks_that_come_again_are_passed_over(transport: str, tmp_path: Path) -> None:
    visit(odd(stale=True), CIPHERED, transport, tmp_path)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_meter_whose_invoke_id_never_changes_needs_check_invoke_off(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdlc_link, "_MAX_BUSY_S", 1.0)  # or the last read takes ten seconds and more
    spec = odd(invoke_stuck=True)
    visit(spec, replace(CIPHERED, check_invoke=False), transport, tmp_path)

    async def main() -> None:
        async with rig(transport, [(spec, interface(transport, CIPHERED))], folder=tmp_path, reply_s=0.3) as bench:
            tried = await attempt(bench, "read")
            assert tried.status is Status.NO_ANSWER  # an answer with another id is one to an earlier request

    asyncio.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("told", [True, False])
def test_what_a_meter_pushes_in_the_middle_goes_into_the_harvest(transport: str, told: bool, tmp_path: Path) -> None:
    """Where its model says how it pushes: values that were not asked for stand beside the ones that were, once."""
    objects = (DlmsObject("export_kwh", "1.0.2.8.0.255", scaler=0, unit=30), DlmsObject("import_kw", "1.0.1.7.0.255"))
    settings = replace(CIPHERED, push=DlmsPush() if told else None, objects=objects)
    registers, curve = visit(odd(push_amid=True), settings, transport, tmp_path)
    asked = {*QUANTITIES, "clock_offset_s"}
    assert [r.quantity for r in registers.readings if r.quantity not in asked] == (["export_kwh"] if told else [])
    assert sum(reading.quantity == "import_kwh" for reading in registers.readings) == 1
    beside = [reading for reading in curve.readings if reading.source is not Source.CURVE]
    assert {reading.quantity for reading in beside} <= ({"export_kwh", "import_kwh"} if told else set())
    assert ("export_kwh" in {reading.quantity for reading in beside}) == told


def test_a_push_in_the_clear_is_not_believed_where_policy_asks_for_more() -> None:
    """Anybody could have sent it."""
    access = memory_access(SECRETS)
    session = Session(replace(CIPHERED, interface="wrapper", push=DlmsPush()), "1", access)
    channel = session._new_channel()
    plain = bytes.fromhex("0F00000001000203")
    channel._keep(plain, plain)
    assert session.notifications == []
    channel._keep(b"\xdb" + plain, plain)
    assert session.notifications == [plain]
