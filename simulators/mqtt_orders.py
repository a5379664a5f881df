"""What a concentrator does when told: read now, send again, set the clock, move a relay, pass a frame on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulators.mqtt_meters import OBIS, ColumnSpec, ConMeter

if TYPE_CHECKING:
    from simulators.mqtt_concentrator import Concentrator

__all__ = ["SCALERS", "obey", "relay_frame"]

SCALERS = {"kWh": -2, "kW": -4, "V": -1, "A": -3, "Hz": -2}
"""How finely an answer to `read` says each unit."""
CLOCK = "0-0:1.0.0"
ZONE_S = 8 * 3600
"""Midnight, for daily freezes, is that of China."""
_QUIET_S = 0.05  # a meter that has said nothing for so long has said all
_TIMEOUT_MS = 2_000


def obey(con: Concentrator, message: Mapping[str, Any], answers: dict[str, list[dict[str, Any]]]) -> None:
    """Carry out a command and answer it. One heard twice is done once and answered twice; one whose time is over is not
    done."""
    cid, op = str(message["cid"]), str(message["op"])
    if cid in answers:
        con.done["commands again"] += 1
    elif con.unlucky(con.faults.unanswered):
        con.done["commands unanswered"] += 1
        return
    elif message["exp"] < con.believed_s():
        con.done["commands expired"] += 1
        answers[cid] = [{"ok": False, "err": "expired"}]
    elif op == "raw":
        _raw_command(con, message, cid)
        return
    else:
        con.commands.append(dict(message))
        try:
            answers[cid] = _ORDERS[op](con, message.get("m") or [], message.get("args") or {})
        except KeyError as error:
            answers[cid] = [{"ok": False, "err": f"unknown: {error.args[0]}"}]
        except (TypeError, ValueError) as error:
            answers[cid] = [{"ok": False, "err": f"bad arguments: {error}"}]
    for body in answers[cid]:
        con.answer(cid, body)


def _meters(con: Concentrator, addresses: Sequence[str]) -> list[ConMeter]:
    return [con.meters[address] for address in addresses] if addresses else list(con.meters.values())


def _read(con: Concentrator, addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`data`: address to [time, integers, bits]; `cols` says what they are, as in reads. `from` and `to` (epoch
    seconds, the end not included) with `kind` and, for intervals, `period`: a list of those for what is kept. The OBIS
    code of the clock gives a meter's clock in epoch seconds."""
    if args.get("obis") == [CLOCK]:
        return _clocks(con, addresses)
    if "from" in args:
        return _history(con, addresses, args)
    wanted = args.get("obis") or [column.obis for column in con.spec.columns]
    mine = {column.obis: column for column in con.spec.columns}
    cols = [mine.get(obis) or ColumnSpec(obis, OBIS[obis], SCALERS[OBIS[obis]]) for obis in wanted]
    now_s = con.believed_s()
    true_s = now_s - con.clock_error_s
    data: dict[str, Any] = {}
    for meter in _meters(con, addresses):
        values = [None if meter.silent else column.integer(meter.units(column.obis, true_s)) for column in cols]
        data[meter.address] = [now_s, values, 4 if meter.silent else 0]
    head = [[column.obis, column.unit, column.scaler] for column in cols]
    return _parts(con, data, {"cols": head})


def _clocks(con: Concentrator, addresses: Sequence[str]) -> list[dict[str, Any]]:
    now_s = con.believed_s()
    told = {
        meter.address: [now_s, [None if meter.silent else now_s + meter.clock_offset_s], 4 if meter.silent else 0]
        for meter in _meters(con, addresses)
    }
    return _parts(con, told, {"cols": [[CLOCK, "s", 0]]})


def _history(con: Concentrator, addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was at the boundaries of a window, no later than now; in parts of `part_rows` rows."""
    cols = [ColumnSpec(obis, OBIS[obis], SCALERS[OBIS[obis]]) for obis in args["obis"]]
    step_s = int(args["period"]) if args["kind"] == "interval" else 86_400
    shift_s = 0 if args["kind"] == "interval" else ZONE_S
    first = -(-(int(args["from"]) + shift_s) // step_s) * step_s - shift_s
    times = [at_s for at_s in range(first, int(args["to"]), step_s) if at_s <= con.believed_s()]
    size = con.spec.part_rows or max(1, len(times))
    head = [[column.obis, column.unit, column.scaler] for column in cols]
    pieces = [times[start : start + size] for start in range(0, len(times), size)] or [[]]
    answers = []
    for number, piece in enumerate(pieces):
        data = {
            meter.address: [
                [at_s, [column.integer(meter.units(column.obis, at_s - con.clock_error_s)) for column in cols], 0]
                for at_s in piece
            ]
            for meter in _meters(con, addresses)
        }
        answers.append({"ok": True, "data": data, "cols": head, "part": number, "more": number < len(pieces) - 1})
    return answers


def _parts(con: Concentrator, data: Mapping[str, Any], more: Mapping[str, Any]) -> list[dict[str, Any]]:
    size = con.spec.part_meters
    if not size or len(data) <= size:
        return [{"ok": True, "data": dict(data), **more}]
    items = list(data.items())
    pieces = [dict(items[first : first + size]) for first in range(0, len(items), size)]
    last = len(pieces) - 1
    return [{"ok": True, "data": piece, "part": k, "more": k < last, **more} for k, piece in enumerate(pieces)]


def _resend(con: Concentrator, addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By number (`boot` with `seq`, a list, or `from` and `to`) what is kept; by time (`since`, `until`: epoch seconds)
    its meters' intervals anew."""
    if "since" in args:
        first = -(-int(args["since"]) // con.period_s) * con.period_s
        times = range(first, int(args["until"]), con.period_s)
        if times:
            con.reads("interval", times, addresses=addresses or None)
        return [{"ok": True, "data": {"sent": len(times)}}]
    boot = int(args.get("boot", con.boot))
    numbers = args["seq"] if "seq" in args else range(int(args["from"]), int(args["to"]) + 1)
    found = [(seq, con.buffer.get(boot, int(seq))) for seq in numbers]
    for _, kept in found:
        if kept is not None:
            con.resend(kept)
    gone = [seq for seq, kept in found if kept is None]
    return [{"ok": True, "data": {"sent": len(found) - len(gone), "gone": gone}}]


def _set_clock(con: Concentrator, addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its own clock to `time` (epoch seconds), or that of meters; by default meters take its own."""
    if addresses:
        for meter in _meters(con, addresses):
            meter.clock_offset_s = int(args.get("time", con.believed_s())) - con.believed_s()
    else:
        con.clock_error_s = int(args["time"]) - int(con.now())
    return [{"ok": True, "data": {"time": con.believed_s()}}]


def _relay(con: Concentrator, addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`state`: `open` cuts the supply, `closed` restores it, absent only asks. `data`: what each meter says it is."""
    if not addresses:
        raise ValueError("name the meters")
    meters = _meters(con, addresses)
    state = args.get("state")
    if state not in ("open", "closed", None):
        raise ValueError(f"state {state!r} is neither open nor closed")
    for meter in meters:
        if state is not None and not meter.relay_stuck and not meter.silent:
            meter.relay_open = state == "open"
    told = {meter.address: "open" if meter.relay_open else "closed" for meter in meters if not meter.silent}
    deaf = [meter.address for meter in meters if meter.silent]
    if deaf:
        return [{"ok": False, "err": f"no answer from {', '.join(deaf)}", "data": told}]
    return [{"ok": True, "data": told}]


def _config(con: Concentrator, _addresses: Sequence[str], args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`period`: seconds between intervals."""
    if "period" in args:
        period_s = int(args["period"])
        if period_s <= 0 or 86_400 % period_s:
            raise ValueError(f"a period of {period_s} s divides no day")
        con.period_s = period_s
    return [{"ok": True, "data": {"period": con.period_s}}]


def _topology(con: Concentrator, _addresses: Sequence[str], _args: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _parts(con, {meter.address: {"online": not meter.silent} for meter in con.meters.values()}, {})


_Order = Callable[["Concentrator", Sequence[str], Mapping[str, Any]], list[dict[str, Any]]]
_ORDERS: dict[str, _Order] = {
    "read": _read,
    "resend": _resend,
    "set_clock": _set_clock,
    "relay": _relay,
    "config": _config,
    "topology": _topology,
}


# -- frames ------------------------------------------------------------------------------------------------------------


def relay_frame(con: Concentrator, message: Mapping[str, Any]) -> None:
    """A frame for a port: what comes back goes up as a frame; nothing does when nothing comes back."""

    def say(data: bytes) -> None:
        if data:
            con.frame_up(str(message["port"]), str(message["proto"]), data, str(message["mid"]))

    _through_port(con, message, say)


def _raw_command(con: Concentrator, message: Mapping[str, Any], cid: str) -> None:
    args = message.get("args") or {}

    def say(data: bytes) -> None:
        con.answer(cid, {"ok": True, "data": {"hex": data.hex()}} if data else {"ok": False, "err": "no answer"})

    if args.get("port") not in con.ports:
        con.answer(cid, {"ok": False, "err": f"unknown: {args.get('port')}"})
    else:
        con.commands.append(dict(message))
        _through_port(con, args, say)


def _through_port(con: Concentrator, args: Mapping[str, Any], say: Callable[[bytes], None]) -> None:
    """Put a frame on a port and tell what came back until the port was quiet, empty when nothing came in time."""
    loop = asyncio.get_running_loop()
    heard = bytearray()

    def over() -> None:
        timer[0].cancel()
        station_open[0] = False
        say(bytes(heard))

    def came(data: bytes) -> None:
        if station_open[0]:
            heard.extend(data)
            timer[0].cancel()
            timer[0] = loop.call_later(_QUIET_S, over)

    station_open = [True]
    timer = [loop.call_later(int(args.get("timeout_ms") or _TIMEOUT_MS) / 1000, over)]
    con.ports[str(args["port"])].station(came, lambda: None, lasting=True).feed(bytes.fromhex(str(args["hex"])))
