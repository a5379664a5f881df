"""What a meter says instead of an answer, in words: result codes, exception responses, service errors, diagnostics of
a refused association (IEC 62056-5-3 clauses 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from headend.errors import BadFrame, HeadendError, NoAccess, Problem, ProtocolError, Refused

__all__ = [
    "ActionError",
    "CounterRefused",
    "DataAccessError",
    "OldAnswer",
    "at_step",
    "exception_of",
    "rejection",
    "service_error_of",
]

DATA_ACCESS: Final[Mapping[int, str]] = {
    1: "hardware fault",
    2: "temporary failure",
    3: "read or write denied",
    4: "object undefined",
    9: "object class inconsistent",
    11: "object unavailable",
    12: "type unmatched",
    13: "scope of access violated",
    14: "data block unavailable",
    15: "long get aborted",
    16: "no long get in progress",
    17: "long set aborted",
    18: "no long set in progress",
    19: "data block number invalid",
    250: "other reason",
}

ACTION_RESULT: Final[Mapping[int, str]] = {**DATA_ACCESS, 15: "long action aborted", 16: "no long action in progress"}

STATE_ERRORS: Final[Mapping[int, str]] = {1: "service not allowed", 2: "service unknown"}

EXCEPTIONS: Final[Mapping[int, str]] = {
    1: "operation not possible",
    2: "service not supported",
    3: "other reason",
    4: "request too long",
    5: "can't be deciphered",
    6: "wrong invocation counter",
}
NOT_DECIPHERED = 5
COUNTER_ERROR = 6

SERVICE_ERRORS: Final[Mapping[int, str]] = {
    0: "application reference",
    1: "hardware resource",
    2: "VDE state",
    3: "service",
    4: "definition",
    5: "access",
    6: "initiate",
    7: "load data set",
    8: "change scope",
    9: "task",
    10: "other",
}

INITIATE_ERRORS: Final[Mapping[int, str]] = {
    0: "other reason",
    1: "DLMS version too low",
    2: "conformance not compatible",
    3: "PDU size too short",
    4: "refused by the VDE handler",
}

DIAGNOSTICS: Final[Mapping[int, str]] = {
    0: "no reason given",
    1: "no reason given",
    2: "application context not supported",
    3: "client system title not recognised",
    4: "calling AP invocation identifier not recognised",
    5: "calling AE qualifier not recognised",
    6: "user identifier not recognised",
    7: "called AP title not recognised",
    8: "called AP invocation identifier not recognised",
    9: "called AE qualifier not recognised",
    10: "called AE invocation identifier not recognised",
    11: "authentication mechanism not recognised",
    12: "authentication mechanism name required",
    13: "authentication failed",
    14: "authentication required",
}

# What an operator should look at, by diagnostic.
_REMEDIES: Final[Mapping[int, str]] = {
    2: "check policy and ciphering of the meter's model",
    3: "check client_title: the meter takes only a registered one",
    6: "check user_id",
    11: "check authentication of the meter's model",
    12: "check authentication of the meter's model",
    13: "check the meter's password or keys in the vault",
    14: "set authentication of the meter's model, this client needs one",
}


class DataAccessError(Refused):
    """One attribute was refused. code: data-access-result; name: in words."""

    names: Mapping[int, str] = DATA_ACCESS
    what = "the meter refuses the value"

    def __init__(self, code: int, *, where: str = "") -> None:
        self.name = self.names.get(code, f"code {code}")
        super().__init__(f"{self.what}: {self.name}", code=code, where=where)


class ActionError(DataAccessError):
    """A method was refused, or failed. code: action-result."""

    names = ACTION_RESULT
    what = "the meter refuses the action"


class CounterRefused(NoAccess):
    """Our invocation counter is not what the meter takes. counter: what the meter says it has, None: it does not."""

    def __init__(self, counter: int | None) -> None:
        self.counter = counter
        super().__init__(
            "the meter refuses our invocation counter",
            remedy="set counter_object and counter_sync of the meter's model, or raise the meter's counter by hand",
        )


class OldAnswer(NoAccess):
    """An answer whose number is not above those seen: one heard before, or another meter with the same keys."""

    def __init__(self, counter: int, seen: int) -> None:
        super().__init__(
            f"the meter's invocation counter {counter} is not above {seen}: an old answer again",
            remedy="if the meter was exchanged or its keys were changed, forget its counters",
        )


def exception_of(apdu: bytes) -> ProtocolError:
    """What an exception response (D8) says. One cut short is a `BadFrame`."""
    if len(apdu) < 3:
        return BadFrame("an exception response ends too early")
    state, service = apdu[1], apdu[2]
    if service == COUNTER_ERROR:
        return CounterRefused(int.from_bytes(apdu[3:7], "big") if len(apdu) >= 7 else None)
    if service == NOT_DECIPHERED:
        return NoAccess(
            "the meter can't decipher what we send",
            remedy="check encryption_key, authentication_key and client_title",
        )
    words = f"{STATE_ERRORS.get(state, f'state {state}')}, {EXCEPTIONS.get(service, f'code {service}')}"
    return Refused(f"the meter answers with an exception: {words}", code=service)


def service_error_of(apdu: bytes) -> ProtocolError:
    """What a confirmed service error (0E) says."""
    if len(apdu) < 4:
        return BadFrame("a service error ends too early")
    kind, value = apdu[2], apdu[3]
    words = SERVICE_ERRORS.get(kind, f"kind {kind}")
    detail = INITIATE_ERRORS.get(value, f"code {value}") if kind == 6 else f"code {value}"
    return Refused(f"the meter answers with a service error: {words}, {detail}", code=value)


def rejection(result: int, provider: bool, diagnostic: int) -> ProtocolError:
    """Why the meter refuses an association: result 1 (permanent) or 2 (transient), its source and diagnostic."""
    lasting = {1: "", 2: " for now"}.get(result, f" (result {result})")
    if provider:
        words = {2: "no common ACSE version"}.get(diagnostic, "no reason given")
        return Refused(f"the meter refuses the association{lasting}: {words}", code=diagnostic)
    words = DIAGNOSTICS.get(diagnostic, f"diagnostic {diagnostic}")
    what = f"the meter refuses the association{lasting}: {words}"
    if diagnostic in _REMEDIES:
        return NoAccess(what, remedy=_REMEDIES[diagnostic])
    return Refused(what, code=diagnostic, remedy="check client, authentication and conformance of the meter's model")


@contextmanager
def at_step(step: str) -> Iterator[None]:
    """Name the step in every error that passes."""
    try:
        yield
    except HeadendError as error:
        problem = error.problem
        where = f"{step}: {problem.where}" if problem.where else step
        error.problem = Problem(where, problem.what, problem.remedy)
        raise
