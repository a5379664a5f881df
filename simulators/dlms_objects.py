"""The COSEM objects of a meter: what can be read, written and done, and by whom (Blue Book)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from simulators import dlms_axdr as axdr
from simulators import momentary
from simulators.dlms_axdr import Malformed, Value
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_profile import CLOCK, NoSelection, Profile
from simulators.dlms_spec import DlmsClient

__all__ = ["AARE_NAMES", "Denied", "Thing", "things_of"]

DENIED, UNDEFINED, INCONSISTENT, UNMATCHED, OTHER = 3, 4, 9, 12, 250
AARE_NAMES = ("0.0.40.0.0.255",)
_WH, _W, _V, _A, _HZ, _COUNT = 30, 27, 35, 33, 44, 255
_PUBLIC_CLASSES = (1, 8, 15)
_BLOCK_BYTES = 128


class Denied(Exception):
    """The meter says no; the data-access-result."""

    def __init__(self, result: int) -> None:
        super().__init__(result)
        self.result = result


Reader = Callable[[], bytes]
Writer = Callable[[Value], None]
Doer = Callable[[Value], bytes | None]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. reads: attribute and its value; attribute 1 is its name, always. writes: attributes that can be
    set. does: methods."""

    class_id: int
    obis: str
    reads: Mapping[int, Reader]
    writes: Mapping[int, Writer] = field(default_factory=dict)
    does: Mapping[int, Doer] = field(default_factory=dict)
    version: int = 0
    profile: Profile | None = None

    def get(self, meter: DlmsMeter, attribute: int, selection: tuple[int, Value] | None) -> bytes:
        """An attribute, encoded. Denied."""
        if attribute == 1:
            return axdr.octets(axdr.obis(self.obis))
        if attribute not in self.reads:
            raise Denied(DENIED)
        if selection is None:
            return self.reads[attribute]()
        if self.profile is None or attribute != 2:
            raise Denied(13)
        try:
            return self.profile.select(meter, *selection)
        except NoSelection as no:
            raise Denied(no.result) from None

    def set(self, attribute: int, value: Value) -> None:
        """Write an attribute. Denied."""
        if attribute not in self.writes:
            raise Denied(DENIED)
        try:
            self.writes[attribute](value)
        except Malformed:
            raise Denied(UNMATCHED) from None

    def do(self, method: int, value: Value) -> bytes | None:
        """Invoke a method; what it returns, encoded. Denied."""
        if method not in self.does:
            raise Denied(DENIED)
        try:
            return self.does[method](value)
        except Malformed:
            raise Denied(UNMATCHED) from None


def things_of(meter: DlmsMeter, client: DlmsClient) -> dict[str, Thing]:
    """Everything this client may see, by OBIS; the association object is the session's."""
    things = [*_names(meter, client), *_registers(meter), _clock(meter), _relay(meter), _image(meter)]
    things += [_added(meter, obis, *what) for obis, what in meter.added.items()]
    things += [_profile(meter, profile) for profile in meter.profiles.values()]
    if client.access == "public":
        things = [thing for thing in things if thing.class_id in _PUBLIC_CLASSES]
    return {thing.obis: _as_seen(thing, client) for thing in things}


def _as_seen(thing: Thing, client: DlmsClient) -> Thing:
    if client.access == "all":
        return thing
    return Thing(thing.class_id, thing.obis, thing.reads, version=thing.version, profile=thing.profile)


# -- names, counters, texts ------------------------------------------------------------------------------------------


def _names(meter: DlmsMeter, client: DlmsClient) -> list[Thing]:
    spec = meter.spec
    name = f"{spec.manufacturer}{int(spec.serial):013d}".encode()
    data: dict[str, Reader] = {
        "0.0.42.0.0.255": lambda: axdr.octets(name),
        "0.0.96.1.0.255": lambda: axdr.octets(spec.serial.encode()),
        "0.0.96.1.1.255": lambda: axdr.octets(spec.model.encode()),
        "1.0.0.2.0.255": lambda: axdr.octets(b"1.0.0"),
        "0.0.96.10.1.255": lambda: axdr.u8(0),
    }
    for known in spec.clients:
        if known.policy != "none" or known.authentication == "hls-gmac":
            sap = known.sap
            data.setdefault(known.counter_obis, lambda sap=sap: axdr.u32(max(meter.seen.get(sap, 0), 0)))  # type: ignore[misc]
    things = [Thing(1, obis, {2: _shown(meter, obis, read)}) for obis, read in data.items()]
    message = Thing(1, "0.0.96.13.0.255", {2: lambda: axdr.octets(meter.message)}, {2: _message(meter)})
    return [*things, message] if client.access != "public" else things


def _message(meter: DlmsMeter) -> Writer:
    def write(value: Value) -> None:
        if value[0] != 9:
            raise Malformed("octet-string wanted")
        meter.message = value[1]

    return write


def _shown(meter: DlmsMeter, obis: str, read: Reader) -> Reader:
    """What was put in its place, or the truth."""
    return lambda: meter.fixed.get(obis) or read()


# -- registers -------------------------------------------------------------------------------------------------------


def _register(meter: DlmsMeter, obis: str, scaler: int, unit: int, read: Callable[[int], bytes]) -> Thing:
    return Thing(
        3,
        obis,
        {
            2: _shown(meter, obis, lambda: read(meter.now_s())),
            3: lambda: axdr.structure(axdr.i8(scaler), axdr.enum(unit)),
        },
    )


def _added(meter: DlmsMeter, obis: str, class_id: int, scaler: int, unit: int) -> Thing:
    if class_id == 3:
        return _register(meter, obis, scaler, unit, lambda at: axdr.null())
    return Thing(class_id, obis, {2: _shown(meter, obis, axdr.null)})


def _registers(meter: DlmsMeter) -> list[Thing]:
    spec, register = meter.spec, meter.register
    energies: list[tuple[str, Callable[[int], bytes]]] = [
        ("1.0.1.8.0.255", lambda at: axdr.u32(meter.imported(at))),
        ("1.0.1.8.1.255", lambda at: axdr.u32(meter.imported(at, 1))),
        ("1.0.1.8.2.255", lambda at: axdr.u32(meter.imported(at, 2))),
        ("1.0.1.8.3.255", lambda at: axdr.u32(meter.imported(at, 3))),
        ("1.0.1.8.4.255", lambda at: axdr.u32(meter.imported(at, 4))),
        ("1.0.2.8.0.255", lambda at: axdr.u32(meter.exported(at))),
    ]
    things = [_register(meter, obis, spec.scaler, _WH, read) for obis, read in energies]
    power = momentary.active
    things.append(_register(meter, "1.0.1.7.0.255", 0, _W, lambda at: axdr.u32(power(register, at) // 10)))
    things.append(_register(meter, "1.0.14.7.0.255", -2, _HZ, lambda at: axdr.u16(5000)))
    things.append(
        _register(meter, "1.0.13.7.0.255", -3, _COUNT, lambda at: axdr.u16(momentary.power_factor(register, at)))
    )
    for phase in range(spec.phases):
        things.append(_register(meter, f"1.0.{32 + 20 * phase}.7.0.255", -1, _V, _voltage(register, phase)))
        things.append(_register(meter, f"1.0.{31 + 20 * phase}.7.0.255", -3, _A, _current(register, spec.phases)))
    return things


def _voltage(register: object, phase: int) -> Callable[[int], bytes]:
    """0.1 V; the other phases a little more."""
    return lambda at: axdr.u16(momentary.voltage(register, at) + 7 * phase)  # type: ignore[arg-type]


def _current(register: object, phases: int) -> Callable[[int], bytes]:
    """0.001 A, shared by the phases."""
    return lambda at: axdr.u32(momentary.current(register, at) // phases)  # type: ignore[arg-type]


# -- clock -----------------------------------------------------------------------------------------------------------


def _clock(meter: DlmsMeter) -> Thing:
    clock = meter.clock

    def believed() -> int:
        return clock.believed(meter.now_s())

    def time() -> bytes:
        raw = clock.encode(believed())
        return axdr.date_time(raw) if meter.spec.quirks.time_tag == "date-time" else axdr.octets(raw)

    def set_time(value: Value) -> None:
        if value[0] not in (9, 25):
            raise Malformed("date-time wanted")
        meter.set_clock(clock.decode(value[1]))

    def shift(value: Value) -> None:
        if value[0] != 16 or abs(value[1]) > 900:
            raise Malformed("long of -900 to 900 wanted")
        meter.set_clock(believed() + value[1])

    def to_next(step_s: int) -> Doer:
        def adjust(_: Value) -> None:
            meter.set_clock((believed() + step_s // 2) // step_s * step_s)

        return adjust

    def dst() -> bool:
        return bool(clock.face(believed()).dst())

    sign = -1 if meter.spec.quirks.deviation != "reversed" else 1
    reads: dict[int, Reader] = {
        2: lambda: meter.fixed.get(CLOCK) or time(),
        3: lambda: axdr.i16(sign * clock.standard_offset_s(believed()) // 60),
        4: lambda: axdr.u8(clock.status | 0x80 * dst()),
        7: lambda: axdr.i8(60),
        8: lambda: axdr.boolean(bool(meter.spec.zone)),
        9: lambda: axdr.enum(1),
    }
    does: dict[int, Doer] = {1: to_next(900), 2: to_next(meter.spec.step_min * 60), 3: to_next(60), 6: shift}
    return Thing(8, CLOCK, reads, {2: set_time}, does)


# -- relay, image, profiles ------------------------------------------------------------------------------------------


def _relay(meter: DlmsMeter) -> Thing:
    def set_mode(value: Value) -> None:
        if value[0] != 22 or value[1] > 6:
            raise Malformed("enum of 0 to 6 wanted")
        meter.control_mode = value[1]

    def order(move: Callable[[], bool]) -> Doer:
        def obey(_: Value) -> None:
            if not move():
                raise Denied(DENIED)

        return obey

    reads: dict[int, Reader] = {
        2: lambda: axdr.boolean(meter.output_on),
        3: lambda: axdr.enum(meter.control_state),
        4: lambda: axdr.enum(meter.control_mode),
    }
    return Thing(70, "0.0.96.3.10.255", reads, {4: set_mode}, {1: order(meter.disconnect), 2: order(meter.reconnect)})


def _image(meter: DlmsMeter) -> Thing:
    """Image transfer as far as taking the blocks."""

    def initiate(value: Value) -> None:
        if value[0] != 2 or len(value[1]) != 2:
            raise Malformed("structure wanted")
        meter.image.clear()

    def block(value: Value) -> None:
        if value[0] != 2 or len(value[1]) != 2 or value[1][1][0] != 9:
            raise Malformed("structure wanted")
        meter.image[value[1][0][1]] = value[1][1][1]

    def first_missing() -> bytes:
        return axdr.u32(next(k for k in range(len(meter.image) + 1) if k not in meter.image))

    reads: dict[int, Reader] = {2: lambda: axdr.u32(_BLOCK_BYTES), 4: first_missing, 5: lambda: axdr.boolean(True)}
    return Thing(18, "0.0.44.0.0.255", reads, does={1: initiate, 2: block})


def _profile(meter: DlmsMeter, profile: Profile) -> Thing:
    first = profile.columns[0]
    sort = axdr.structure(axdr.u16(8 if first == CLOCK else 3), axdr.octets(axdr.obis(first)), axdr.i8(2), axdr.u16(0))
    reads: dict[int, Reader] = {
        2: lambda: profile.rows(profile.times(), meter.spec.quirks),
        3: profile.capture_objects,
        4: lambda: axdr.u32(profile.period_s),
        5: lambda: axdr.enum(1),
        6: lambda: sort,
        7: lambda: axdr.u32(len(profile.times())),
        8: lambda: axdr.u32(profile.depth),
    }
    return Thing(7, profile.obis, reads, version=1, profile=profile)
