"""Load profiles: the curves of the SGCC supplement (`0610xxxx`) and the load records of appendix B (`06cc0001`).

A value is only ever filed under the time the meter said. A reply for other times than asked is not taken: a curve
names the time of its first point, a record carries its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Refused, Unsupported, UsageError, WrongMeter
from headend.model import Cause, CurveSpec, Harvest, Meter, Reading, ReadJob, Source, Window
from headend.protocols.dlt645.bcd import all_ff, minute_bytes, number, numbers, stamp
from headend.protocols.dlt645.exchange import gather
from headend.protocols.dlt645.frame import checksum
from headend.protocols.dlt645.haul import Haul, cause_of

__all__ = ["RECORD_FIELDS", "Record", "parse_records", "read_curve"]

CURVE_DI = {"import_kwh": "06100601", "export_kwh": "06100602"}
RECORD_DI = "06040001"  # class 4, from a given time
RECORD_ENERGIES = ("import_kwh", "export_kwh", "import_kvarh", "export_kvarh")

ENERGY_BYTES = 4
TIME_BYTES = 5
MAX_DATA = 200  # clause 5.2.4
CURVE_POINTS = (MAX_DATA - 4 - TIME_BYTES) // ENERGY_BYTES
RECORD_BYTES = 32  # a record of class 4 alone
RECORDS = (MAX_DATA - 4) // RECORD_BYTES

SETTLE_TRIES = 4
FUTURE = timedelta(days=1)  # how far a meter's clock may be ahead
NOT_HELD = "the meter holds no such record"

# Appendix B: name, unit, bytes, decimals, signed of each item of a class.
RECORD_FIELDS: dict[int, tuple[tuple[str, str, int, int, bool], ...]] = {
    1: (
        *((f"voltage phase {p}", "V", 2, 1, False) for p in "ABC"),
        *((f"current phase {p}", "A", 3, 3, True) for p in "ABC"),
        ("frequency", "Hz", 2, 2, False),
    ),
    2: (
        *((f"active power {p}", "kW", 3, 4, True) for p in ("total", "phase A", "phase B", "phase C")),
        *((f"reactive power {p}", "kvar", 3, 4, True) for p in ("total", "phase A", "phase B", "phase C")),
    ),
    3: tuple((f"power factor {p}", "", 2, 3, True) for p in ("total", "phase A", "phase B", "phase C")),
    4: (
        ("forward active energy", "kWh", 4, 2, False),
        ("reverse active energy", "kWh", 4, 2, False),
        ("combined reactive energy 1", "kvarh", 4, 2, True),
        ("combined reactive energy 2", "kvarh", 4, 2, True),
    ),
    5: tuple((f"reactive energy Q{q}", "kvarh", 4, 2, False) for q in ("I", "II", "III", "IV")),
    6: (("active demand", "kW", 3, 4, True), ("reactive demand", "kvar", 3, 4, True)),
}
_SEPARATOR = 0xAA
_SIZES = {number_: sum(f[2] for f in fields) for number_, fields in RECORD_FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """One load record. time: `mm hh DD MM YY` as sent. classes: bytes by class. problem: why it is of no use, or ""."""

    time: bytes = b""
    classes: dict[int, bytes] = field(default_factory=dict)
    problem: str = ""


# --- load records: parsing ----------------------------------------------------------------------------------------


def parse_records(data: bytes, wanted: int = 0) -> Iterator[Record]:
    """The records in `data`, good and bad, in order. wanted: the class asked for, 0 for all. Never raises.

    A record is `A0 A0 len time classes sum E5`; classes lie in order, each followed by AA, one not stored is a bare
    AA. Lengths are fixed, so AA within data is no trouble. Some meters leave the other classes' AA out.
    """
    at = 0
    while at < len(data):
        if data[at : at + 2] not in (b"\xa0\xa0", b"\xe0\xe0") or at + 3 > len(data):
            yield Record(problem=f"no load record starts with {data[at : at + 2].hex().upper()}")
            return
        end = at + 3 + data[at + 2]
        if end + 2 > len(data) or data[end + 1] != 0xE5:
            yield Record(problem="a load record without its end E5")
            return
        yield _record(data[at : end + 1], wanted)
        at = end + 2


def _record(body: bytes, wanted: int) -> Record:
    """One record, its sum last."""
    if checksum(body[:-1]) != body[-1]:
        return Record(problem=f"a load record with checksum {body[-1]:02X}, the sum is {checksum(body[:-1]):02X}")
    time, content = body[3 : 3 + TIME_BYTES], body[3 + TIME_BYTES : -1]
    if body[0] == 0xE0:
        return Record(time=time, problem="the meter marks this load record as bad (E0 E0)")
    layouts = _layouts(content, 1)
    if len(layouts) == 1:
        return Record(time=time, classes=layouts[0])
    short = _short(content, wanted) if wanted and not layouts else None
    if short is not None:
        return Record(time=time, classes={wanted: short})
    return Record(time=time, problem=f"a load record of {len(content)} bytes that fits no layout of appendix B")


def _layouts(content: bytes, number_: int) -> list[dict[int, bytes]]:
    """Every way to read `content` as classes `number_` to 6; one, unless the record is damaged."""
    if number_ > 6:
        return [{}] if not content else []
    found = []
    if content[:1] == b"\xaa":
        found += _layouts(content[1:], number_ + 1)
    for size in (_SIZES[number_], 12) if number_ == 6 else (_SIZES[number_],):
        if len(content) > size and content[size] == _SEPARATOR:
            found += [{number_: content[:size], **rest} for rest in _layouts(content[size + 1 :], number_ + 1)]
    return found


def _short(content: bytes, wanted: int) -> bytes | None:
    """The wanted class alone, without the AA of the classes before it, and with at most its own after it."""
    size = _SIZES[wanted]
    return content[:size] if content[size:] in (b"", b"\xaa") and len(content) >= size else None


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Task:
    """A curve being read. at: for each quantity, how far it is known. flowing: the last answer held data."""

    meter: Meter
    window: Window
    step: timedelta
    tz: tzinfo
    now: datetime
    haul: Haul
    at: dict[str, datetime]
    flowing: bool = False

    def miss(self, quantity: str, cause: Cause, detail: str, start: datetime, end: datetime) -> None:
        end = min(end, self.window.end)
        if start < end:
            self.haul.miss(quantity, cause, detail, Window(start, end))

    def take(self, quantity: str, raw: bytes, at: datetime, *, signed: bool = False) -> None:
        """One value as sent, at its time."""
        try:
            value = number(raw, 2, signed=signed)
        except BadFrame as error:
            self.miss(quantity, Cause.BAD_FRAME, str(error), at, at + self.step)
            return
        if value is None:
            self.miss(quantity, Cause.NULL_VALUE, "the meter marks it as missing (FF)", at, at + self.step)
            return
        step_s = self.step // timedelta(seconds=1)
        self.haul.readings.append(Reading(quantity, value, at, self.now, Source.CURVE, step_s))


def read_curve(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """The points of `job.window` (its start and every step after, up to its end) of `job.quantities`."""
    spec = meter.model.curve
    if spec is None:
        raise Unsupported(f"model {meter.model.name} keeps no load profile", where=f"meter {meter.id}")
    if job.window is None:
        raise UsageError("a curve job needs a window", where=f"meter {meter.id}")
    held = _held(spec, meter)
    haul = Haul()
    wanted = [name for name in job.quantities if name in held]
    for name in job.quantities:
        if name not in held:
            haul.miss(name, Cause.UNSUPPORTED, f"form {spec.form} of load profile does not hold it", job.window)
    start = job.window.start
    step = timedelta(seconds=spec.step_s)
    task = _Task(meter, job.window, step, zone(meter.clock_zone), now, haul, dict.fromkeys(wanted, start))
    try:
        if spec.form == "record":
            if wanted:
                yield from _read_records(task)
        else:
            for name in wanted:
                yield from _read_points(task, name)
    except (NoAnswer, BadFrame, WrongMeter) as error:
        if not haul.gathered:
            raise
        for name, at in task.at.items():
            task.miss(name, cause_of(error), str(error), at, job.window.end)
    return haul.close()


def _held(spec: CurveSpec, meter: Meter) -> tuple[str, ...]:
    if spec.form == "0610":
        return tuple(CURVE_DI)
    if spec.form == "record":
        return RECORD_ENERGIES
    raise Unsupported(f"load profile form {spec.form!r} is not one of 0610, record", where=f"model {meter.model.name}")


def _read_points(task: _Task, quantity: str) -> Conversation[None]:
    """One quantity by its curve of the supplement."""
    task.flowing = False
    while (at := task.at[quantity]) < task.window.end:
        end = _chunk_end(task, at, CURVE_POINTS)
        try:
            data = yield from _settled(task, CURVE_DI[quantity], at, end, _curve_time)
        except Refused as error:
            task.haul.refuse(quantity, error, Window(at, end))
            task.at[quantity] = end
            continue
        task.at[quantity] = _take_points(task, quantity, data, at, end)


def _read_records(task: _Task) -> Conversation[None]:
    """All wanted quantities by load records of class 4."""
    while (at := min(task.at.values())) < task.window.end:
        end = _chunk_end(task, at, RECORDS)
        try:
            data = yield from _settled(task, RECORD_DI, at, end, _record_time)
        except Refused as error:
            for name in task.at:
                task.haul.refuse(name, error, Window(at, end))
            following = end
        else:
            following = _take_records(task, data, at, end)
        task.at = dict.fromkeys(task.at, following)


def _chunk_end(task: _Task, at: datetime, most: int) -> datetime:
    """Where a question for as many points as fit one answer ends."""
    count = min(most, -(-(task.window.end - at) // task.step))
    return min(at + count * task.step, task.window.end)


def _settled(task: _Task, di: str, at: datetime, end: datetime, first: _FirstTime) -> Conversation[bytes]:
    """The answer for `[at, end)`. One that says "not held" or "held only from later on" is believed when the meter says
    so twice running, or right after it gave data: it might be a late answer to an earlier question."""
    count = -(-(end - at) // task.step)
    request = bytes((count,)) + minute_bytes(at, task.tz)  # N is a plain binary number

    def check(data: bytes) -> str:
        return _objection(data, at, task, first)

    said: datetime | None = None
    for attempt in range(SETTLE_TRIES):
        data = yield from gather(task.meter.address, di, request, check=check)
        start = first(data, task.tz)
        if start == at or (attempt and start == said) or (start is None and task.flowing):
            task.flowing = start is not None
            return data
        said = start
    raise BadFrame("the meter's record starts somewhere else each time it is asked", where=f"meter {task.meter.id}")


_FirstTime = Callable[[bytes, tzinfo], "datetime | None"]


def _curve_time(data: bytes, tz: tzinfo) -> datetime | None:
    """When a curve starts; None if it has no points. `BadFrame` if that is no time."""
    if not data or all_ff(data):
        return None
    start = stamp(data[:TIME_BYTES], tz)
    if len(data) == TIME_BYTES:
        return None
    if start is None:
        raise BadFrame("a curve with points but no start")
    return start


def _record_time(data: bytes, tz: tzinfo) -> datetime | None:
    """When the first usable record of an answer was stored; None if there is none."""
    for record in parse_records(data, 4):
        if not record.problem:
            return stamp(record.time, tz)
    return None


def _objection(data: bytes, at: datetime, task: _Task, first: _FirstTime) -> str:
    """Why data can't be the answer to a question from `at` on, or ""; looks at their first time."""
    try:
        start = first(data, task.tz)
    except BadFrame as error:
        return str(error)
    return "" if start is None else _time_objection(start, at, task)


def _time_objection(time: datetime, at: datetime, task: _Task) -> str:
    local = f"{time.astimezone(task.tz):%Y-%m-%d %H:%M}"
    if time < at or time > task.now + FUTURE:
        return f"the meter answered for {local}, asked was {at.astimezone(task.tz):%Y-%m-%d %H:%M}"
    if (time - at) % task.step:
        return f"the meter's {local} is not on the grid of {task.step // timedelta(minutes=1)} min"
    return ""


def _take_points(task: _Task, quantity: str, data: bytes, at: datetime, end: datetime) -> datetime:
    """File the points of one answer; returns from where to go on."""
    start = _curve_time(data, task.tz)
    if start is None:
        task.miss(quantity, Cause.NOT_IN_MEMORY, NOT_HELD, at, end)
        return end
    points = data[TIME_BYTES:]
    if len(points) % ENERGY_BYTES:
        raise BadFrame(f"a curve of {len(points)} bytes, not a multiple of 4", where=f"meter {task.meter.id}")
    task.miss(quantity, Cause.NOT_IN_MEMORY, NOT_HELD, at, start)
    count = min(len(points) // ENERGY_BYTES, max(0, -(-(task.window.end - start) // task.step)))
    values = numbers(points[: count * ENERGY_BYTES], ENERGY_BYTES, 2)
    if values is not None:  # the usual case, quickly: nothing is missing
        now, step, step_s = task.now, task.step, task.step // timedelta(seconds=1)
        task.haul.readings += [
            Reading(quantity, value, start + i * step, now, Source.CURVE, step_s) for i, value in enumerate(values)
        ]
        return start + count * step
    for i in range(count):
        task.take(quantity, points[i * ENERGY_BYTES : (i + 1) * ENERGY_BYTES], start + i * task.step)
    return start + count * task.step


def _take_records(task: _Task, data: bytes, at: datetime, end: datetime) -> datetime:
    """File the records of one answer; returns from where to go on."""
    good, problem = _good(parse_records(data, 4), at, task)
    why = (Cause.BAD_FRAME, problem) if problem else (Cause.NOT_IN_MEMORY, NOT_HELD)
    reached = at
    for time, energies in good:
        if time >= task.window.end:
            break
        for name in task.at:
            task.miss(name, *why, reached, time)
            _take_energy(task, name, energies, time)
        reached = time + task.step
    if good and good[-1][0] < task.window.end:
        return reached
    until = task.window.end if good else end
    for name in task.at:
        task.miss(name, *why, reached, until)
    return until


def _good(records: Iterator[Record], at: datetime, task: _Task) -> tuple[list[tuple[datetime, bytes | None]], str]:
    """Time and class 4 of the usable records, and the first problem of the others. `BadFrame` for times not asked."""
    good: list[tuple[datetime, bytes | None]] = []
    problem = ""
    earliest = at
    for record in records:
        if record.problem:
            problem = problem or record.problem
            continue
        time = stamp(record.time, task.tz)
        objection = _time_objection(time, earliest, task) if time else "a load record without a time"
        if objection or time is None:
            raise BadFrame(objection, where=f"meter {task.meter.id}")
        good.append((time, record.classes.get(4)))
        earliest = time + task.step
    return good, problem


def _take_energy(task: _Task, name: str, energies: bytes | None, time: datetime) -> None:
    if energies is None:
        detail = "the meter's load records hold no energies (class 4)"
        task.miss(name, Cause.UNSUPPORTED, detail, time, time + task.step)
        return
    index = RECORD_ENERGIES.index(name)
    raw = energies[index * ENERGY_BYTES : (index + 1) * ENERGY_BYTES]
    task.take(name, raw, time, signed=RECORD_FIELDS[4][index][4])
