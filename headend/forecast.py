"""How busy lines will be: wire arithmetic over what the drivers would ask. Needs no daemon and no meter; pure.

Each kind of job is rehearsed once: the driver's own conversation against a meter that answers at once and whole, so
the number and the lengths of the frames are the driver's, not a copy. What it can't know: meters that are silent,
noise, and how long a meter really takes to answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from headend.access import memory_access
from headend.civil import from_epoch_s, to_epoch_s
from headend.conversation import Conversation, Send
from headend.endpoints import LineSettings, parse_serial
from headend.errors import HeadendError, NoAnswer, Unsupported
from headend.model import Meter, ReadJob, ReadKind, Window
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645 import ideal
from headend.protocols.modbus import ideal as modbus_ideal
from headend.scheduler.plan import DAY_S, Track, due_slots, horizon_start, jobs, slot_of, tracks
from headend.scheduler.settings import Schedule
from headend.wire import BITS_8E1, bits_per_char, chars_s

__all__ = ["LineForecast", "RoundForecast", "Traffic", "forecast", "rehearse"]

_ALL_JOBS = 1_000_000
# Meters that answer at once and whole. What DLMS meters say depends on their profiles: there is no ideal one.
_IDEALS = {"dlt645": ideal.answer, "modbus": modbus_ideal.answer}

_POLLS = (ReadKind.REGISTERS, ReadKind.CLOCK)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes over a wire: questions that are answered, their bytes and those of the answers."""

    exchanges: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.exchanges + other.exchanges,
            self.request_bytes + other.request_bytes,
            self.reply_bytes + other.reply_bytes,
        )

    def times(self, count: int) -> Traffic:
        return Traffic(self.exchanges * count, self.request_bytes * count, self.reply_bytes * count)


@dataclass(frozen=True, slots=True)
class RoundForecast:
    """One round of a schedule over the meters of a line.

    period_s: from one round to the next. round_s: how long it takes. share: of the line's time. ends_s: after the
    boundary (a quarter of an hour, midnight) at which it begins; latest_s: if everything else on the line came first.
    limit_s: when it must have ended. None where the line's speed is unknown.
    """

    schedule: str
    kind: str
    meters: int
    exchanges: int
    bytes: int
    period_s: int
    limit_s: int
    round_s: float | None
    share: float | None
    ends_s: float | None
    latest_s: float | None


@dataclass(frozen=True, slots=True)
class LineForecast:
    """A line. speed: as configured, "" unknown. backfill_s: line time to fill every meter's memory within the horizon;
    backfill_takes_s: how long that lasts beside the rounds. fits: None where the speed is unknown. why_not: sentences.
    """

    line: str
    speed: str
    meters: int
    rounds: tuple[RoundForecast, ...]
    share: float | None
    backfill_exchanges: int
    backfill_s: float | None
    backfill_takes_s: float | None
    fits: bool | None
    why_not: tuple[str, ...]


def rehearse(conversation: Conversation[object], answer: Callable[[bytes], bytes]) -> Traffic:
    """What `conversation` puts on the wire when each question is answered by `answer`. Raises what it raises."""
    exchanges = sent = received = 0
    try:
        request = next(conversation)
        while True:
            reply = b""
            if isinstance(request, Send):
                sent += len(request.data)
                if not request.expect_reply:
                    request = conversation.send(b"")
                    continue
                reply = answer(request.data)
                received += len(reply)
                exchanges += 1
            request = conversation.send(reply) if reply else conversation.throw(NoAnswer("no answer to rehearse with"))
    except StopIteration:
        return Traffic(exchanges, sent, received)


# -- what one meter needs ----------------------------------------------------------------------------------------------

_Round = tuple[Schedule, int]  # a schedule and the period of its rounds


@dataclass(frozen=True, slots=True)
class _Needs:
    """The traffic of one meter: by round, to fill its memory, of its longest job; and what could not be rehearsed."""

    rounds: dict[_Round, Traffic]
    backfill: Traffic
    longest: Traffic
    problems: tuple[str, ...]


def _needs(meter: Meter, schedules: Sequence[Schedule], now: datetime) -> _Needs:
    rounds: dict[_Round, Traffic] = {}
    problems: dict[str, None] = {}
    backfill = longest = Traffic()

    def add(key: _Round, job: ReadJob) -> None:
        try:
            rounds[key] = rounds.get(key, Traffic()) + _of_job(job, now)
        except HeadendError as error:
            problems[f"schedule {key[0].name}, model {meter.model.name}: can't be predicted: {error.problem.what}"] = (
                None
            )

    if PROTOCOLS[meter.protocol].pushed:
        return _Needs(rounds, backfill, longest, ())
    for schedule in schedules:
        if schedule.kind in _POLLS and schedule.every_s and _covers(schedule, meter):
            add((schedule, schedule.every_s), ReadJob(meter, schedule.kind, schedule.quantities))
    for track in tracks(meter, schedules):
        add((track.schedule, track.step_s), _live(track, now))
        try:
            for traffic, count in _backfill(track, now):
                backfill += traffic.times(count)
                longest = max(longest, traffic, key=lambda one: one.request_bytes + one.reply_bytes)
        except HeadendError:
            continue  # told already for the live job
    return _Needs(rounds, backfill, longest, tuple(problems))


def _covers(schedule: Schedule, meter: Meter) -> bool:
    return ("*" in schedule.lines or meter.line in schedule.lines) and (
        "*" in schedule.models or meter.model.name in schedule.models
    )


def _of_job(job: ReadJob, now: datetime) -> Traffic:
    protocol = job.meter.protocol
    family = protocol.partition("-")[0]
    if family not in _IDEALS:
        raise Unsupported(f"how long the answers of a {protocol} meter are, only the meter knows")
    conversation = PROTOCOLS[protocol].start(job, now=now, access=memory_access())
    answer = _IDEALS[family]
    return rehearse(conversation, partial(answer, job.meter, now=now))


def _live(track: Track, now: datetime) -> ReadJob:
    """The job for the newest slot of `track`."""
    day, index = slot_of(track, to_epoch_s(now))
    at = from_epoch_s(day * DAY_S + track.phase_s + index * track.step_s)
    return ReadJob(track.meter, _kind(track), track.quantities, Window(at, at + timedelta(seconds=track.step_s)))


def _kind(track: Track) -> ReadKind:
    if track.sampled:
        return ReadKind.SAMPLE
    return ReadKind.DAILY_FREEZE if track.schedule.kind is ReadKind.DAILY_FREEZE else ReadKind.CURVE


def _backfill(track: Track, now: datetime) -> Iterable[tuple[Traffic, int]]:
    """The jobs that fill all of the track's horizon, those of one size together."""
    missing = due_slots(track, horizon_start(track, now), now)
    sizes: dict[timedelta, list[ReadJob]] = defaultdict(list)
    for job in jobs(track, missing, now, most=_ALL_JOBS):
        if job.window is not None:
            sizes[job.window.end - job.window.start].append(job)
    return [(_of_job(same[0], now), len(same)) for same in sizes.values()]


# -- what a line makes of it -------------------------------------------------------------------------------------------


def forecast(
    lines: Iterable[LineSettings],
    meters: Iterable[Meter],
    schedules: Sequence[Schedule],
    now: datetime,
    *,
    delay_s: float,
) -> list[LineForecast]:
    """Every line that has meters, in the order of `lines`. delay_s: from a question's last character to the first of
    its answer (Td, 0.02 to 0.5 s by clause 5.2)."""
    on_line: dict[str, list[Meter]] = defaultdict(list)
    for meter in meters:
        on_line[meter.line].append(meter)
    known: dict[tuple[str, str, str, tuple[Schedule, ...]], _Needs] = {}

    def needs(meter: Meter) -> _Needs:
        mine = tuple(schedule for schedule in schedules if _covers(schedule, meter))
        key = (meter.model.name, meter.protocol, meter.clock_zone, mine)
        if key not in known:
            known[key] = _needs(meter, mine, now)
        return known[key]

    return [
        _line(settings, [(meter, needs(meter)) for meter in on_line[settings.name]], delay_s)
        for settings in lines
        if on_line[settings.name]
    ]


def _line(settings: LineSettings, members: Sequence[tuple[Meter, _Needs]], delay_s: float) -> LineForecast:
    wait_s = delay_s + settings.turnaround_s
    totals: dict[_Round, tuple[int, Traffic, float | None]] = {}
    backfill, backfill_s, longest_s = Traffic(), _none_if_unknown(settings), 0.0
    problems: dict[str, None] = {}
    for meter, needs in members:
        char_s = _char_s(settings, meter)
        problems |= dict.fromkeys(needs.problems)
        for key, traffic in needs.rounds.items():
            count, before, seconds = totals.get(key, (0, Traffic(), _none_if_unknown(settings)))
            totals[key] = (count + 1, before + traffic, _plus(seconds, traffic, char_s, wait_s))
        backfill += needs.backfill
        backfill_s = _plus(backfill_s, needs.backfill, char_s, wait_s)
        longest_s = max(longest_s, _plus(0.0, needs.longest, char_s, wait_s) or 0.0)
    busiest_s = longest_s + sum(seconds or 0.0 for _, _, seconds in totals.values())
    rounds = tuple(
        _round(schedule, period_s, count, traffic, seconds, busiest_s)
        for (schedule, period_s), (count, traffic, seconds) in totals.items()
    )
    share = None if backfill_s is None else sum(one.share or 0.0 for one in rounds)
    why_not = [*problems, *_misfits(rounds, share)]
    takes_s = None if backfill_s is None or share is None or share >= 1 else backfill_s / (1 - share)
    return LineForecast(
        line=settings.name,
        speed=_speed(settings),
        meters=len(members),
        rounds=rounds,
        share=share,
        backfill_exchanges=backfill.exchanges,
        backfill_s=backfill_s,
        backfill_takes_s=takes_s,
        fits=None if share is None else not why_not,
        why_not=tuple(why_not),
    )


def _none_if_unknown(settings: LineSettings) -> float | None:
    return 0.0 if settings.endpoint.kind == "serial" or settings.wire_baud else None


def _speed(settings: LineSettings) -> str:
    endpoint = settings.endpoint
    if endpoint.kind == "serial":
        return f"{endpoint.baud} {endpoint.bytesize}{endpoint.parity}{endpoint.stopbits}"
    return str(settings.wire_baud or "")


def _char_s(settings: LineSettings, meter: Meter) -> float:
    """Time of a character to and from this meter; 0 when the speed is unknown."""
    endpoint = settings.endpoint
    if endpoint.kind != "serial":
        return chars_s(1, settings.wire_baud, BITS_8E1) if settings.wire_baud else 0.0
    baud, bytesize, parity, stopbits = endpoint.baud, endpoint.bytesize, endpoint.parity, endpoint.stopbits
    if meter.serial:
        baud, bytesize, parity, stopbits = parse_serial(meter.serial)
    return chars_s(1, baud, bits_per_char(bytesize, parity, stopbits))


def _plus(seconds: float | None, traffic: Traffic, char_s: float, wait_s: float) -> float | None:
    if seconds is None:
        return None
    return seconds + (traffic.request_bytes + traffic.reply_bytes) * char_s + traffic.exchanges * wait_s


def _round(
    schedule: Schedule, period_s: int, count: int, traffic: Traffic, round_s: float | None, busiest_s: float
) -> RoundForecast:
    poll = schedule.kind in _POLLS
    begins_s = min(schedule.settle_s, period_s - 1) if poll else schedule.settle_s
    return RoundForecast(
        schedule=schedule.name,
        kind=schedule.kind.value,
        meters=count,
        exchanges=traffic.exchanges,
        bytes=traffic.request_bytes + traffic.reply_bytes,
        period_s=period_s,
        limit_s=period_s if poll else schedule.deadline_s,
        round_s=round_s,
        share=None if round_s is None else round_s / period_s,
        ends_s=None if round_s is None else begins_s + round_s,
        latest_s=None if round_s is None else begins_s + busiest_s,
    )


def _misfits(rounds: Iterable[RoundForecast], share: float | None) -> list[str]:
    """Why a line can't do what it is asked to, a sentence each."""
    if share is None:
        return []
    if share > 1:
        return [f"the rounds take {100 * share:.0f} % of the line's time: fewer meters, fewer reads, or a faster line"]
    return [
        f"a round of {one.schedule} may end {one.latest_s:.0f} s after its boundary, {one.limit_s} s are allowed"
        for one in rounds
        if one.latest_s is not None and one.latest_s > one.limit_s
    ]
