"""What one APDU means, in words: services, notifications, errors, and what protects them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from headend.access import memory_access
from headend.errors import BadFrame, HeadendError, NoAccess, ProtocolError
from headend.protocols.dlms import failures
from headend.protocols.dlms.apdu import Apdu, Reader
from headend.protocols.dlms.axdr import Datum, decode, decode_all
from headend.protocols.dlms.clock import stamp_text
from headend.protocols.dlms.cosem import Attribute
from headend.protocols.dlms.explain_acse import ACSE, explain_acse, explain_initiate, title_text
from headend.protocols.dlms.explain_page import HIDDEN, Page, attribute_text, datum_text, is_secret, short
from headend.protocols.dlms.push import head_time, notification
from headend.protocols.dlms.security import header_of, is_protected, unwrap
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["explain_apdu"]

_OTHERS: Final[Mapping[int, str]] = {
    0x05: "read request (short names)",
    0x06: "write request (short names)",
    0x0C: "read response (short names)",
    0x0D: "write response (short names)",
    0x16: "unconfirmed write request (short names)",
    0x18: "information report (short names)",
    0xD9: "access request",
    0xDA: "access response",
    0xDD: "general ciphering (public keys)",
    0xDF: "general signing",
}
_PROTECTED: Final[Mapping[int, str]] = {
    0x21: "glo initiate request",
    0x28: "glo initiate response",
    0x2E: "glo service error",
    0x41: "ded initiate request",
    0x48: "ded initiate response",
    0x4E: "ded service error",
    0xC8: "glo get request",
    0xC9: "glo set request",
    0xCA: "glo event notification",
    0xCB: "glo action request",
    0xCC: "glo get response",
    0xCD: "glo set response",
    0xCF: "glo action response",
    0xD0: "ded get request",
    0xD1: "ded set request",
    0xD2: "ded event notification",
    0xD3: "ded action request",
    0xD4: "ded get response",
    0xD5: "ded set response",
    0xD7: "ded action response",
    0xDB: "general glo ciphering",
    0xDC: "general ded ciphering",
}
_SC_BITS: Final = ((0x10, "authenticated"), (0x20, "encrypted"), (0x40, "broadcast key"), (0x80, "compressed"))
_MAX_VALUES: Final = 1000
_MAX_DEPTH: Final = 4


def explain_apdu(page: Page, apdu: bytes, depth: int = 0) -> None:
    """One whole APDU onto the page."""
    tag = apdu[0]
    if depth > _MAX_DEPTH:
        page.bad("ever more layers, one within the other")
        return
    try:
        if is_protected(apdu) and tag not in _OTHERS:
            _protected(page, apdu, depth)
        elif tag in ACSE:
            explain_acse(page, apdu, lambda inner: explain_apdu(page, inner, depth + 1))
        elif tag in (Apdu.INITIATE_REQUEST, Apdu.INITIATE_RESPONSE):
            explain_initiate(page, apdu)
        elif tag in _SERVICES:
            _SERVICES[tag](page, apdu)
        elif tag in _OTHERS:
            page.note("APDU", _OTHERS[tag], apdu[:1])
            page.say(_OTHERS[tag])
            page.problems.append(f"{_OTHERS[tag]} is not taken apart here")
        else:
            page.note("APDU", f"unknown tag {tag:02X}", apdu[:1])
            page.bad(f"{tag:02X} begins no APDU of DLMS")
    except (BadFrame, IndexError) as error:
        what = error.problem.what if isinstance(error, HeadendError) else "the APDU ends too early"
        page.bad(what)


# --- protection -----------------------------------------------------------------------------------------------------


def _protected(page: Page, apdu: bytes, depth: int) -> None:
    name = _PROTECTED[apdu[0]]
    page.note("APDU", name, apdu[:1])
    header = header_of(apdu)
    if apdu[0] in (0xDB, 0xDC):
        page.note("system title", title_text(header.title) if header.title else "none", header.title)
    bits = [word for bit, word in _SC_BITS if header.control & bit]
    words = ", ".join(bits) or "neither authenticated nor encrypted"
    page.note("security control", f"suite {header.control & 0x0F}, {words}", bytes((header.control,)))
    page.note("invocation counter", str(header.counter), header.counter.to_bytes(4, "big"))
    tag_bytes = 12 if header.control & 0x10 else 0
    page.note("text", f"{max(len(header.text) - tag_bytes, 0)} bytes" + (" and a tag of 12" if tag_bytes else ""))
    plain = _opened(page, apdu, header.control, header.text)
    if plain is None:
        page.say(f"{name}, invocation counter {header.counter}")
    elif not plain:
        page.bad("there is nothing inside the protection")
    else:
        explain_apdu(page, plain, depth + 1)


def _opened(page: Page, apdu: bytes, control: int, text: bytes) -> bytes | None:
    """What is inside, None when it can't be read; the tag's verdict goes onto the page."""
    authenticated, encrypted = bool(control & 0x10), bool(control & 0x20)
    names = ["broadcast_key" if control & 0x40 else "encryption_key"] if encrypted else []
    if not page.secrets.get(names[0] if names else "encryption_key"):
        if encrypted:
            page.problems.append("ciphered: give the encryption key to see what it says")
            return None
        page.note("tag", "not checked: no keys given")
        return text[:-12] if authenticated else text
    checked = authenticated and bool(page.secrets.get("authentication_key"))
    given = page.secrets.get("system_title", b"")
    settings = DlmsSettings(
        check_tag=checked,
        client_title=(page.client_title or given).hex(),
        meter_title=(page.meter_title or given).hex(),
    )
    try:
        plain = unwrap(
            apdu,
            settings,
            memory_access(page.secrets),
            dedicated_key=page.dedicated_key or page.secrets.get("dedicated_key", b""),
            count=False,
        )
    except NoAccess as error:
        if "tag" in error.problem.what:
            page.note("tag", "wrong")
            page.bad("the authentication tag is wrong: another key, another sender, or changed on its way")
        else:
            page.problems.append(error.problem.what)
        return None
    except ProtocolError as error:
        page.problems.append(error.problem.what)
        return None
    if authenticated:
        page.note("tag", "right" if checked else "not checked: the authentication key is not given")
    if encrypted and not checked and not _plausible(plain):
        page.bad("what was deciphered is no APDU: the encryption key is another one")
        return None
    return plain


def _plausible(plain: bytes) -> bool:
    return bool(plain) and (plain[0] in _SERVICES or plain[0] in _OTHERS or plain[0] in (0x01, 0x08))


# --- services -------------------------------------------------------------------------------------------------------


def _head(page: Page, reader: Reader, service: str, choices: Mapping[int, str]) -> tuple[int, int]:
    """Tag, choice and invoke id."""
    choice, invoke = reader.data[1], reader.data[2]
    reader.at = 3
    words = choices.get(choice, f"form {choice}")
    page.note("APDU", f"{service}, {words}", reader.data[:2])
    flags = ["confirmed" if invoke & 0x40 else "unconfirmed", "high priority" if invoke & 0x80 else "normal priority"]
    page.note("invoke id", f"{invoke & 0x0F}, {', '.join(flags)}", bytes((invoke,)))
    if choice not in choices:
        page.bad(f"{service} has no form {choice}")
    return choice, invoke & 0x0F


def _descriptor(reader: Reader) -> Attribute:
    class_id, obis = reader.number(2), reader.take(6)
    return Attribute(class_id, obis, int.from_bytes(reader.take(1), "big", signed=True))


def _wanted(page: Page, reader: Reader, *, what: str = "attribute") -> Attribute:
    """An attribute, and how it is selected from."""
    start = reader.at
    attribute = _descriptor(reader)
    page.note(what, attribute_text(attribute, what), reader.data[start : reader.at])
    if what == "attribute" and reader.number():
        selector = reader.number()
        datum, reader.at = decode(reader.data, reader.at)
        kind = {1: "range", 2: "entries"}.get(selector, f"selector {selector}")
        page.note("selection", f"{kind}: {datum_text(datum)}", bytes((selector,)))
    return attribute


def _get_request(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choice, invoke = _head(page, reader, "GET request", {1: "normal", 2: "next block", 3: "with a list"})
    if choice == 2:
        page.note("block", str(reader.number(4)), b"")
        page.say("GET request for the next block")
        return
    count = 1 if choice == 1 else reader.length()
    attributes = [_wanted(page, reader) for _ in range(min(count, reader.left))]
    page.asked[invoke] = attributes
    page.say(f"GET request: {', '.join(map(short, attributes))}")
    reader.end()


def _get_response(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choice, invoke = _head(page, reader, "GET response", {1: "normal", 2: "with a block", 3: "with a list"})
    asked = page.asked.get(invoke, [])
    if choice == 2:
        _get_block(page, reader, invoke)
        return
    count = 1 if choice == 1 else reader.length()
    page.say("GET response")
    for index in range(min(count, reader.left)):
        _result(page, reader, asked[index] if index < len(asked) else None)
    reader.end()


def _result(page: Page, reader: Reader, attribute: Attribute | None) -> None:
    """Data, or why there is none."""
    start = reader.at
    if reader.number():
        code = reader.number()
        words = failures.DATA_ACCESS.get(code, f"code {code}") if code else "success"
        page.note("result", words, reader.data[start : reader.at])
        if code:
            where = f" ({short(attribute)})" if attribute else ""
            page.problems.append(f"the meter refuses a value{where}: {words}")
            page.say(f"refused: {words}")
        return
    datum, reader.at = decode(reader.data, reader.at)
    _value(page, datum, attribute, reader.data[start : reader.at])


def _value(page: Page, datum: Datum, attribute: Attribute | None, raw: bytes) -> None:
    if attribute is not None and is_secret(attribute):
        page.note("data", HIDDEN)
        return
    page.note("data", f"{len(raw)} bytes", raw)
    note = "" if attribute is None or attribute.index == 2 else f"attribute {attribute.index}"
    page.value(attribute.obis if attribute else None, datum, None, note)


def _get_block(page: Page, reader: Reader, invoke: int) -> None:
    last, number = reader.number(), reader.number(4)
    page.note("block", f"{number}, {'the last' if last else 'more follow'}", reader.data[reader.at - 5 : reader.at])
    if reader.number():
        code = reader.number()
        page.problems.append(f"the meter breaks off: {failures.DATA_ACCESS.get(code, f'code {code}')}")
        return
    data = reader.octets()
    reader.end()
    page.note("data", f"{len(data)} bytes of the whole", data)
    page.say(f"GET response, block {number}")
    before, parts = page.parts.get(invoke, (number - 1 if number <= 1 else -1, b""))
    if number != before + 1:
        page.parts.pop(invoke, None)
        return
    page.parts[invoke] = number, parts + data
    if last:
        whole = page.parts.pop(invoke)[1]
        asked = page.asked.get(invoke, [])
        if len(asked) <= 1:
            _value(page, decode_all(whole), asked[0] if asked else None, whole)


def _set_request(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choices = {
        1: "normal",
        2: "with a first block",
        3: "with a block",
        4: "with a list",
        5: "with a list and a first block",
    }
    choice, _ = _head(page, reader, "SET request", choices)
    if choice != 1:
        page.say("SET request in parts")
        page.note("data", f"{reader.left} bytes, {HIDDEN}: a part alone does not tell whether it is a secret")
        return
    attribute = _wanted(page, reader)
    page.say(f"SET request: {short(attribute)}")
    _value(page, decode_all(reader.rest()), attribute, apdu[reader.at :])


def _set_response(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choices = {1: "normal", 2: "next block", 3: "last block", 4: "last block with a list", 5: "with a list"}
    choice, _ = _head(page, reader, "SET response", choices)
    if choice == 2:
        page.note("block", str(reader.number(4)))
        page.say("SET response: next block")
        return
    count = reader.length() if choice in (4, 5) else 1
    words = [_code(page, reader.number(), failures.DATA_ACCESS) for _ in range(min(count, reader.left))]
    page.say(f"SET response: {', '.join(words)}")


def _code(page: Page, code: int, names: Mapping[int, str]) -> str:
    words = names.get(code, f"code {code}") if code else "success"
    page.note("result", words, bytes((code,)))
    if code:
        page.problems.append(f"the meter refuses: {words}")
    return words


def _action_request(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choices = {
        1: "normal",
        2: "next block",
        3: "with a list",
        4: "with a first block",
        5: "list, first block",
        6: "with a block",
    }
    choice, _ = _head(page, reader, "ACTION request", choices)
    if choice != 1:
        page.say("ACTION request in parts")
        page.note("data", f"{reader.left} bytes, {HIDDEN}: a part alone does not tell whether it is a secret")
        return
    method = _wanted(page, reader, what="method")
    page.say(f"ACTION request: {short(method).split(' ')[0]} method {method.index}")
    if not reader.number():
        return
    if is_secret(method, method=True):
        page.note("parameter", HIDDEN)
        return
    raw = reader.rest()
    page.note("parameter", datum_text(decode_all(raw)), raw)


def _action_response(page: Page, apdu: bytes) -> None:
    reader = Reader(apdu)
    choices = {1: "normal", 2: "with a block", 3: "with a list", 4: "next block"}
    choice, _ = _head(page, reader, "ACTION response", choices)
    if choice != 1:
        page.say("ACTION response in parts")
        return
    page.say(f"ACTION response: {_code(page, reader.number(), failures.ACTION_RESULT)}")
    if reader.left and reader.number():
        if reader.number():
            _code(page, reader.number(), failures.DATA_ACCESS)
        else:
            # What an action returns may be a key or the answer to a challenge: only its size is told.
            page.note("returned", f"{reader.left} bytes, {HIDDEN}")


def _exception(page: Page, apdu: bytes) -> None:
    page.note("APDU", "exception response", apdu[:1])
    state, service = apdu[1], apdu[2]
    page.note("state error", failures.STATE_ERRORS.get(state, f"code {state}"), apdu[1:2])
    words = failures.EXCEPTIONS.get(service, f"code {service}")
    page.note("service error", words, apdu[2:3])
    if service == failures.COUNTER_ERROR and len(apdu) >= 7:
        page.note("invocation counter", str(int.from_bytes(apdu[3:7], "big")), apdu[3:7])
    page.say(f"exception response: {words}")
    page.problems.append(f"the meter answers with an exception: {words}")


def _service_error(page: Page, apdu: bytes) -> None:
    page.note("APDU", "confirmed service error", apdu[:1])
    what = failures.service_error_of(apdu).problem.what
    page.note("error", what.rpartition(": ")[2], apdu[1:4])
    page.say("confirmed service error")
    page.problems.append(what)


def _notification(page: Page, apdu: bytes) -> None:
    stamp, items, event = notification(apdu, DlmsSettings(), "UTC")
    kind = "event notification" if event else "data notification"
    page.note("APDU", kind, apdu[:1])
    if not event:
        page.note("invoke id", str(int.from_bytes(apdu[2:5], "big")), apdu[1:5])
    time = head_time(apdu, 2 if event else 5)[0] if not event or apdu[1] else b""
    if time:
        page.note("time", stamp_text(time), time)
        if stamp.invalid:
            page.problems.append("the meter says that its clock is not valid")
    for item in items[:_MAX_VALUES]:
        note = "" if item.scale or item.obis is None else _unscaled(item.datum)
        if item.position >= 0:
            note = f"position {item.position}, the body does not say what it is"
        page.value(item.obis, item.datum, item.scale, note)
    page.say(f"{kind}, {len(items)} values")


def _unscaled(datum: Datum) -> str:
    numeric = isinstance(datum.value, int) and not isinstance(datum.value, bool)
    return "as sent, the body tells no scaler" if numeric else ""


_SERVICES: Final[Mapping[int, Callable[[Page, bytes], None]]] = {
    Apdu.SERVICE_ERROR: _service_error,
    Apdu.DATA_NOTIFICATION: _notification,
    Apdu.EVENT_NOTIFICATION: _notification,
    Apdu.GET_REQUEST: _get_request,
    Apdu.GET_RESPONSE: _get_response,
    Apdu.SET_REQUEST: _set_request,
    Apdu.SET_RESPONSE: _set_response,
    Apdu.ACTION_REQUEST: _action_request,
    Apdu.ACTION_RESPONSE: _action_response,
    Apdu.EXCEPTION: _exception,
}
