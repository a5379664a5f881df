"""Daily freezes (`0506kknn`, SGCC supplement): registers frozen at the meter's midnight, nn-th last.

nn counts back from the last freeze, so it names another day after every midnight, and days the meter was off leave no
entry. Therefore the time of an entry (`050600nn`) is always read before its value and never inferred; and the first
time is read once more at the end: if it has changed, a midnight came between and everything is read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from headend.civil import day_start, local_days, zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, Unsupported, UsageError, WrongMeter
from headend.model import Cause, Fault, Harvest, Meter, Reading, ReadJob, Source, Window
from headend.protocols.dlt645.bcd import all_ff, number, stamp
from headend.protocols.dlt645.exchange import NO_SUCH_DATA, gather
from headend.protocols.dlt645.haul import Haul, cause_of
from headend.quantities import QUANTITIES

__all__ = ["read_freezes", "read_timed_freezes"]

DAY = timedelta(days=1)
MAX_NTH = 0xFE
LOCATE_TRIES = 8  # enough to halve the longest memory down to one entry
ENERGY_BYTES = 4
TIMED_DEPTH = 12

# kk of 0506kknn by DI2 of the register's own identifier 00ZZrr00; combined reactive energies are signed.
_KK = {"01": "01", "02": "02", "03": "03", "04": "04", "05": "05", "06": "06", "07": "07", "08": "08"}
_SIGNED = ("03", "04")


@dataclass(slots=True)
class _Pass:
    """One pass over the wanted midnights.

    seen: time of each entry read, None where the meter holds none. anchor: the first entry used. sure: how many
    readings and faults stand although the end was not reached: later entries were where they had to be. steady: no
    entry was anywhere else so far.
    """

    meter: Meter
    tz: tzinfo
    now: datetime
    depth: int
    prefix: str = "0506"
    source: Source = Source.DAILY_FREEZE
    haul: Haul = field(default_factory=Haul)
    seen: dict[int, datetime | None] = field(default_factory=dict)
    anchor: tuple[int, datetime] | None = None
    sure: tuple[int, int] = (0, 0)
    steady: bool = True

    def miss(self, names: tuple[str, ...], cause: Cause, detail: str, midnight: datetime) -> None:
        """A frozen midnight that did not come; its window is that one day."""
        self.haul.faults += [Fault(name, cause, detail, Window(midnight, midnight + DAY)) for name in names]


def read_freezes(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """`job.quantities` as frozen at the meter's midnights in `job.window`, newest first."""
    if meter.model.daily_freeze_depth <= 0:
        raise Unsupported(f"model {meter.model.name} has no daily freeze", where=f"meter {meter.id}")
    if job.window is None:
        raise UsageError("a daily freeze job needs a window", where=f"meter {meter.id}")
    tz = zone(meter.clock_zone)
    midnights = [day_start(day, tz) for day in local_days(job.window.start, job.window.end, tz)][::-1]
    blocks, unknown = _blocks(job.quantities)
    for last in (False, True):
        run = _Pass(meter, tz, now, min(meter.model.daily_freeze_depth, MAX_NTH))
        run.haul.faults += [Fault(name, Cause.UNSUPPORTED, "not in the daily freeze", job.window) for name in unknown]
        run.sure = (0, len(run.haul.faults))
        try:
            for midnight in midnights:
                yield from _read_day(run, midnight, blocks)
            moved = yield from _moved(run)
        except (NoAnswer, BadFrame, WrongMeter, Refused) as error:
            return _cut_short(run, error, midnights, blocks)
        if not moved:
            return run.haul.close()
        if last:
            restless = BadFrame("the freeze memory moved on twice while it was read", where=f"meter {meter.id}")
            return _cut_short(run, restless, midnights, blocks)
    raise AssertionError("the loop returns")


def read_timed_freezes(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """`job.quantities` at the meter's timed freezes (`0500kknn`, 12 of them) in `job.window`, newest first.

    When a meter freezes is set in it by function 16: hourly, daily or, as a rule, monthly. The time of each entry is
    read with it, and the first one again at the end, as for daily freezes.
    """
    if job.window is None:
        raise UsageError("a timed freeze job needs a window", where=f"meter {meter.id}")
    blocks, unknown = _blocks(job.quantities)
    for _ in range(2):
        run = _Pass(meter, zone(meter.clock_zone), now, TIMED_DEPTH, prefix="0500", source=Source.TIMED_FREEZE)
        run.haul.faults += [Fault(name, Cause.UNSUPPORTED, "not in the timed freeze", job.window) for name in unknown]
        yield from _read_timed(run, job.window, blocks)
        if not (yield from _moved(run)):
            if not run.haul.readings and not run.haul.faults:
                names = [name for members in blocks.values() for name, _ in members]
                what = "no timed freeze of the meter lies in the window"
                run.haul.faults += [Fault(name, Cause.NOT_IN_MEMORY, what, job.window) for name in names]
            return run.haul.close()
    raise BadFrame("the freeze memory moved on twice while it was read", where=f"meter {meter.id}")


def _read_timed(run: _Pass, window: Window, blocks: _Blocks) -> Conversation[None]:
    """The entries in `window`; they are older the higher they count."""
    for nth in range(1, run.depth + 1):
        data = yield from _item(run, "00", nth)
        at = stamp(data, run.tz) if data else None
        if at is None or at < window.start:
            return
        if run.anchor is None:
            run.anchor = (nth, at)
        if at < window.end:
            for kk, members in blocks.items():
                _take(run, kk, members, (yield from _item(run, kk, nth)), at)


_Blocks = dict[str, list[tuple[str, int]]]


def _blocks(quantities: tuple[str, ...]) -> tuple[_Blocks, list[str]]:
    """For each kk the wanted quantities with their place in the block (total, rate 1, ...); and what has no kk."""
    blocks: _Blocks = {}
    unknown = []
    for name in quantities:
        di = QUANTITIES[name].di if name in QUANTITIES else ""
        if di[:2] == "00" and di[2:4] in _KK:
            blocks.setdefault(_KK[di[2:4]], []).append((name, int(di[4:6], 16)))
        else:
            unknown.append(name)
    return blocks, unknown


def _read_day(run: _Pass, midnight: datetime, blocks: _Blocks) -> Conversation[None]:
    """Locate the entry of one midnight and read its values."""
    names = tuple(name for block in blocks.values() for name, _ in block)
    if midnight > run.now or not names:
        run.miss(names, Cause.NOT_YET, "this midnight is still to come", midnight)
        return
    nth = yield from _locate(run, midnight)
    if not isinstance(nth, int):
        run.miss(names, *nth, midnight)
        return
    if run.anchor is None:
        run.anchor = (nth, midnight)
    for kk, members in blocks.items():
        data = yield from _item(run, kk, nth)
        _take(run, kk, members, data, midnight)


def _locate(run: _Pass, midnight: datetime) -> Conversation[int | tuple[Cause, str]]:
    """Which entry froze `midnight`, or why none can be told. Entries are older the higher they count."""
    for attempt in range(LOCATE_TRIES + 1):
        found = next((nth for nth, time in run.seen.items() if time == midnight), None)
        if found is not None:
            if attempt == 1 and run.steady:  # nothing moved since the entries before it were read
                run.sure = (len(run.haul.readings), len(run.haul.faults))
            return found
        guess = _guess(run, midnight)
        if guess is None:
            return Cause.NOT_IN_MEMORY, "no freeze of this midnight in the meter's memory"
        if attempt == LOCATE_TRIES:
            break
        known = any(run.seen.values())
        data = yield from _item(run, "00", guess)
        try:
            run.seen[guess] = stamp(data, run.tz) if data else None
        except BadFrame as error:
            run.steady = False
            return Cause.BAD_FRAME, f"time of freeze {guess}: {error}"
        run.steady &= not known or run.seen[guess] == midnight
    return Cause.NOT_ASKED, f"not found among the meter's freezes in {LOCATE_TRIES} tries"


def _guess(run: _Pass, midnight: datetime) -> int | None:
    """The next entry to look at, from what was seen; None when the midnight can't be in the memory.

    Where the entry it should be is empty (the meter is younger than its memory is long), the rest is halved.
    """
    newer = max((nth for nth, time in run.seen.items() if time is not None and time > midnight), default=0)
    older = min((nth for nth, time in run.seen.items() if time is None or time < midnight), default=run.depth + 1)
    if older - newer <= 1:
        return None
    time_newer = run.seen.get(newer)
    time_older = run.seen.get(older)
    if time_newer is not None:
        guess = newer + -(-(time_newer - midnight) // DAY)
    elif time_older is not None:
        guess = older - -(-(midnight - time_older) // DAY)
    else:
        today = day_start(run.now.astimezone(run.tz).date(), run.tz)
        guess = (today - midnight) // DAY + 1
    if guess >= older and older in run.seen and time_older is None:
        return (newer + older) // 2
    return min(max(guess, newer + 1), older - 1)


def _item(run: _Pass, kk: str, nth: int) -> Conversation[bytes]:
    """One item of entry `nth`; empty when the meter says it holds none."""
    try:
        return (yield from gather(run.meter.address, f"{run.prefix}{kk}{nth:02X}"))
    except Refused as error:
        if error.code is not None and error.code & NO_SUCH_DATA:
            return b""
        raise


def _take(run: _Pass, kk: str, members: list[tuple[str, int]], data: bytes, midnight: datetime) -> None:
    """File the wanted items of one block."""
    if not data or all_ff(data):
        names = tuple(name for name, _ in members)
        run.miss(names, Cause.NOT_IN_MEMORY, "the meter holds no value of this midnight", midnight)
        return
    for name, index in members:
        raw = data[index * ENERGY_BYTES : (index + 1) * ENERGY_BYTES]
        if len(data) % ENERGY_BYTES:
            detail = f"a block of {len(data)} bytes, not a multiple of {ENERGY_BYTES}"
            run.miss((name,), Cause.BAD_FRAME, detail, midnight)
        elif not raw:
            detail = f"the meter freezes {len(data) // ENERGY_BYTES} registers, this one is not among them"
            run.miss((name,), Cause.UNSUPPORTED, detail, midnight)
        else:
            _take_value(run, name, raw, midnight, signed=kk in _SIGNED)


def _take_value(run: _Pass, name: str, raw: bytes, midnight: datetime, *, signed: bool) -> None:
    try:
        value = number(raw, 2, signed=signed)
    except BadFrame as error:
        run.miss((name,), Cause.BAD_FRAME, str(error), midnight)
        return
    if value is None:
        run.miss((name,), Cause.NULL_VALUE, "the meter marks it as missing (FF)", midnight)
    else:
        run.haul.readings.append(Reading(name, value, midnight, run.now, run.source))


def _moved(run: _Pass) -> Conversation[bool]:
    """Whether a midnight came while the entries were read, so that they may name other days than thought."""
    if run.anchor is None:
        return False
    nth, midnight = run.anchor
    data = yield from _item(run, "00", nth)
    return not data or stamp(data, run.tz) != midnight


def _cut_short(run: _Pass, error: ProtocolError, midnights: list[datetime], blocks: _Blocks) -> Harvest:
    """What is sure when the pass did not come to its end; the rest failed for `error`. Raises it if nothing is."""
    readings, faults = run.haul.readings[: run.sure[0]], run.haul.faults[: run.sure[1]]
    told = {(r.quantity, r.at) for r in readings} | {(f.quantity, f.window.start) for f in faults if f.window}
    if not readings:
        raise error
    names = [name for block in blocks.values() for name, _ in block]
    faults += [
        Fault(name, cause_of(error), str(error), Window(midnight, midnight + DAY))
        for midnight in midnights
        for name in names
        if (name, midnight) not in told
    ]
    return Harvest(tuple(readings), tuple(faults))
