"""Rows of a profile generic (class 7): what its columns are, asking for the rows of a span, taking them apart.

A row is only ever placed at the time it says. Meters may leave out what repeats (null-data, Blue Book 4.3.6): a clock
is then the one of the row before and one capture period on, a value the same again. That holds within one answer only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from headend.access import Access
from headend.civil import to_epoch_s
from headend.conversation import Conversation
from headend.errors import BadFrame, ProtocolError, Refused, Unsupported
from headend.model import Meter
from headend.protocols.dlms.apdu import entry_descriptor, range_descriptor
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.clock import Stamp, parse_time, range_time
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.objects import CLOCK_CLASS, PROFILE_CLASS, settings_of
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings

__all__ = ["Layout", "Profile", "Row", "layout_of", "open_profile", "read_rows", "rows_of"]

BUFFER, CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD, ENTRIES_IN_USE = 2, 3, 4, 5, 7
_NEWEST_FIRST: Final = 2  # sort method LIFO
_UNIX_TIME: Final = bytes((0, 0, 1, 1, 0, 255))

_HOUR: Final = timedelta(hours=1)
_PROBES: Final = 24  # of a search by entry; a regular profile takes two
_MARGIN: Final = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """What rows hold. period_s: capture period, 0 when rows come at other times or it is not known. newest_first:
    the buffer is sorted so."""

    columns: tuple[Attribute, ...]
    period_s: int = 0
    newest_first: bool = False

    def index_of(self, obis: bytes) -> int | None:
        """The first column of an object; None when there is none."""
        return next((i for i, column in enumerate(self.columns) if column.obis == obis), None)


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile of one meter, ready to be asked. clock: index of the column of times."""

    meter: Meter
    settings: DlmsSettings
    spec: DlmsProfile
    access: Access
    layout: Layout
    clock: int

    def attribute(self, index: int) -> Attribute:
        """One attribute of the profile object."""
        return Attribute(PROFILE_CLASS, obis_bytes(self.spec.obis), index)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. at: its time, None where that can't be told, and `problem` says why. values: as sent, null where the
    meter holds none; as many as columns."""

    at: datetime | None
    stamp: Stamp | None
    values: tuple[Datum, ...]
    problem: str = ""


# --- the columns ----------------------------------------------------------------------------------------------------


def open_profile(session: Session, meter: Meter, spec: DlmsProfile, access: Access) -> Conversation[Profile]:
    """The profile with its layout: as the settings say, else as the meter said once. Raises `Unsupported` when its
    rows have no time."""
    settings = settings_of(meter)
    key = _layout_key(meter, spec)
    layout = access.memo.get(key)
    if not isinstance(layout, Layout):
        layout = configured(spec) if spec.columns else (yield from _ask_layout(session, spec))
        access.memo[key] = layout
    clock = layout.index_of(obis_bytes(settings.clock_obis))
    if clock is None:
        clock = next((i for i, one in enumerate(layout.columns) if one.class_id == CLOCK_CLASS), None)
    if clock is None:
        clock = layout.index_of(_UNIX_TIME)
    if clock is None:
        raise Unsupported(f"the rows of profile {spec.obis} have no time", where=f"meter {meter.id}")
    return Profile(meter, settings, spec, access, layout, clock)


def _layout_key(meter: Meter, spec: DlmsProfile) -> tuple[str, ...]:
    # Of the meter: what a profile captures can be set in each, and a wrong column is a wrong value.
    return ("dlms profile", meter.id, meter.address, spec.obis, *spec.columns)


def configured(spec: DlmsProfile) -> Layout:
    """The layout the settings give. An object that stands twice is its value, then when it was captured."""
    columns: list[Attribute] = []
    for text in spec.columns:
        obis = obis_bytes(text) if text else b""
        again = any(column.obis == obis for column in columns) and bool(obis)
        columns.append(Attribute(0, obis, 5 if again else 2))
    return Layout(tuple(columns))


def _ask_layout(session: Session, spec: DlmsProfile) -> Conversation[Layout]:
    obis = obis_bytes(spec.obis)
    wanted = [Attribute(PROFILE_CLASS, obis, index) for index in (CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD)]
    objects, period, order = yield from session.get_many(wanted)
    if isinstance(objects, ProtocolError):
        raise objects
    return layout_of(objects, _whole(period), _whole(order) == _NEWEST_FIRST)


def _whole(answer: Datum | ProtocolError) -> int:
    """A number the meter need not give; 0 without."""
    value = answer.value if isinstance(answer, Datum) else 0
    return value if isinstance(value, int) else 0


def layout_of(objects: Datum, period_s: int = 0, newest_first: bool = False) -> Layout:
    """The layout in an attribute capture_objects. Raises `BadFrame`."""
    columns = []
    for one in objects.value if objects.tag == Tag.ARRAY else ():
        match one:
            case Datum(Tag.STRUCTURE, (Datum(_, int(class_id)), Datum(_, bytes(obis)), Datum(_, int(index)), *_)):
                if len(obis) == 6:
                    columns.append(Attribute(class_id, obis, index))
    if objects.tag != Tag.ARRAY or not columns or len(columns) != len(objects.value):
        raise BadFrame("the meter does not say what its profile captures")
    return Layout(tuple(columns), period_s, newest_first)


# --- asking ---------------------------------------------------------------------------------------------------------


def read_rows(session: Session, profile: Profile, first: datetime, last: datetime) -> Conversation[list[Row]]:
    """The rows from `first` to `last`, both included, as the profile can be asked. A range a meter took otherwise than
    it was meant brings rows of other times: these are given as they came.

    A meter that refuses a range is asked by entry from then on. Raises what the meter refuses in the end.
    """
    way = profile.spec.selective if profile.settings.selective_access else "none"
    if way == "range" and not profile.access.memo.get(_no_range_key(profile)):
        try:
            return (yield from _by_range(session, profile, first, last))
        except Refused as refused:
            try:
                rows = yield from _by_entry(session, profile, first, last)
            except Refused:
                raise refused from None
            profile.access.memo[_no_range_key(profile)] = True
    elif way == "none":
        rows = yield from _ask(session, profile, None)
    else:
        rows = yield from _by_entry(session, profile, first, last)
    return [row for row in rows if row.at is None or first <= row.at <= last]


def _no_range_key(profile: Profile) -> tuple[str, ...]:
    return ("dlms no range", profile.meter.id, profile.meter.address, profile.spec.obis)


def _ask(session: Session, profile: Profile, selection: bytes | None) -> Conversation[list[Row]]:
    datum = yield from session.get(profile.attribute(BUFFER), selection)
    try:
        return rows_of(datum, profile)
    except BadFrame:
        # What it captures may have been changed: ask again next time.
        profile.access.memo.pop(_layout_key(profile.meter, profile.spec), None)
        raise


def _by_range(session: Session, profile: Profile, first: datetime, last: datetime) -> Conversation[list[Row]]:
    settings, zone_name = profile.settings, profile.meter.clock_zone
    obis = obis_bytes(profile.spec.restrict_by)
    index = profile.layout.index_of(obis)
    class_id = profile.layout.columns[index].class_id if index is not None else 0
    if obis == _UNIX_TIME:
        start, end = (Datum(Tag.DOUBLE_LONG_UNSIGNED, to_epoch_s(at)) for at in (first, last))
    else:
        start, end = (Datum(Tag.OCTET_STRING, range_time(at, settings, zone_name)) for at in (first, last))
    restricting = Attribute(class_id or (1 if obis == _UNIX_TIME else CLOCK_CLASS), obis, 2)
    return (yield from _ask(session, profile, range_descriptor(restricting, start, end)))


def _by_entry(session: Session, profile: Profile, first: datetime, last: datetime) -> Conversation[list[Row]]:
    """The rows by their number: found by asking for the times of some, for rows may be missing or be too many."""
    count = _whole((yield from session.get(profile.attribute(ENTRIES_IN_USE))))
    if count <= 0:
        return []
    start = yield from _row_time(session, profile, 1)
    end = yield from _row_time(session, profile, count)
    upward = start <= end
    oldest, newest = (start, end) if upward else (end, start)
    if oldest > last or newest < first:
        return []

    def entry(position: int) -> int:
        return position + 1 if upward else count - position

    place, place_at = 0, oldest
    if oldest < first:
        above = count - 1
        for probe in range(_PROBES):
            if above - place <= 1:
                break
            ahead = (first - place_at) // _period(profile) if probe < _PROBES // 4 else (above - place) // 2
            middle = min(max(place + ahead, place + 1), above - 1)
            at = yield from _row_time(session, profile, entry(middle))
            if at < first:
                place, place_at = middle, at
            else:
                above = middle
    rows: list[Row] = []
    while place < count and place_at <= last:
        upto = min(place + (last - place_at) // _period(profile) + _MARGIN, count - 1)
        found = yield from _ask(session, profile, entry_descriptor(*sorted((entry(place), entry(upto)))))
        rows += found
        place, place_at = upto + 1, max((row.at for row in found if row.at is not None), default=last + _HOUR)
    return rows


def _period(profile: Profile) -> timedelta:
    """How far rows lie apart as a rule."""
    curve = profile.meter.model.curve
    seconds = profile.layout.period_s or (curve.step_s if curve is not None else 0)
    return timedelta(seconds=max(seconds, 60))


def _row_time(session: Session, profile: Profile, entry: int) -> Conversation[datetime]:
    rows = yield from _ask(session, profile, entry_descriptor(entry, entry))
    if len(rows) != 1 or rows[0].at is None:
        raise BadFrame(f"entry {entry} of profile {profile.spec.obis} has no time", where=f"meter {profile.meter.id}")
    return rows[0].at


# --- taking rows apart ----------------------------------------------------------------------------------------------


def rows_of(buffer: Datum, profile: Profile) -> list[Row]:
    """The rows in an attribute buffer, in the order sent. Raises `BadFrame` when they don't fit the columns."""
    if buffer.tag != Tag.ARRAY:
        raise BadFrame(f"the buffer of profile {profile.spec.obis} is no array")
    width = len(profile.layout.columns)
    for one in buffer.value:
        if one.tag != Tag.STRUCTURE or len(one.value) != width:
            size = len(one.value) if one.tag == Tag.STRUCTURE else 1
            what = f"a row of profile {profile.spec.obis} holds {size} values, its columns are {width}"
            raise BadFrame(what, where=f"meter {profile.meter.id}")
    cells: list[tuple[Datum, ...]] = [one.value for one in buffer.value]
    stamps = [_stamp(row[profile.clock], profile) for row in cells]
    step = timedelta(seconds=profile.layout.period_s)
    step = -step if _downward(stamps, profile.layout) else step
    rows: list[Row] = []
    before: Row | None = None
    for values, stamp in zip(cells, stamps, strict=True):
        before = _row(values, stamp, before, step, repeat=profile.spec.nulls == "repeat")
        rows.append(before)
    return rows


def _stamp(datum: Datum, profile: Profile) -> Stamp | str | None:
    """A row's own time; None where it is left out; why there is none as text."""
    if datum.value is None:
        return None
    try:
        stamp = parse_time(datum, profile.settings, profile.meter.clock_zone)
    except BadFrame as error:
        return str(error)
    return stamp if stamp.at is not None else "a row whose time is left open"


def _downward(stamps: Sequence[Stamp | str | None], layout: Layout) -> bool:
    """Whether the newest row comes first: by two times where there are, else by the sort method."""
    known = [stamp.at for stamp in stamps if isinstance(stamp, Stamp) and stamp.at is not None]
    if len(known) > 1 and known[0] != known[-1]:
        return known[0] > known[-1]
    return layout.newest_first


def _row(
    values: tuple[Datum, ...], stamp: Stamp | str | None, before: Row | None, step: timedelta, *, repeat: bool
) -> Row:
    if repeat and before is not None and any(value.value is None for value in values):
        values = tuple(old if new.value is None else new for new, old in zip(values, before.values, strict=True))
    if isinstance(stamp, str):
        return Row(None, None, values, stamp)
    if stamp is None:
        if before is None or before.at is None or not step:
            return Row(None, None, values, "a row without a time, and none before it to count from")
        return Row(before.at + step, None, values)
    return _sorted_out(Row(stamp.at, stamp, values), before, step)


def _sorted_out(row: Row, before: Row | None, step: timedelta) -> Row:
    """Where an hour comes twice (daylight saving ends) and the meter does not say which it is, the row before tells."""
    if row.at is None or row.stamp is None or not row.stamp.ambiguous:
        return row
    for at in (row.at, row.at + _HOUR):
        if before is not None and before.at is not None and step and at == before.at + step:
            return Row(at, row.stamp, row.values)
    return Row(None, row.stamp, row.values, "a row in an hour that comes twice on that day: which one can't be told")
