"""Everything that differs between DLMS/COSEM meters and must be set, never guessed: per meter model, and per meter.

Defaults are what most meters in the field want. What each knob is for, and where it was seen: docs/dlms.md. In a meter
model's file they stand under `[dlms]`; a meter's own are in the column `options` of meters.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Authentication",
    "Ciphering",
    "DlmsObject",
    "DlmsProfile",
    "DlmsPush",
    "DlmsSettings",
    "EventLog",
    "Interface",
    "Policy",
]

Interface = Literal["hdlc", "wrapper"]
Authentication = Literal["none", "lls", "hls-md5", "hls-sha1", "hls-gmac", "hls-sha256"]
Ciphering = Literal["general-glo", "service-glo", "general-ded", "service-ded"]
Policy = Literal["none", "authenticated", "encrypted", "authenticated-encrypted"]


@dataclass(frozen=True, slots=True)
class DlmsObject:
    """Where a quantity is in the meter. scaler: power of ten the value is multiplied with, None: read from the meter.

    unit: COSEM unit code (Blue Book table 4; 30 Wh, 27 W), 0: read from the meter. class_id 1 has no scaler at all.
    """

    quantity: str
    obis: str
    class_id: int = 3
    attribute: int = 2
    scaler: int | None = None
    unit: int = 0


@dataclass(frozen=True, slots=True)
class DlmsProfile:
    """One profile generic (class 7). columns: OBIS of what each column holds, in order, `` for what is not wanted;
    empty: read once from the meter (attribute 3).

    stamp: whether a row's time is the end of its interval or its start. selective: how a range is asked for.
    scalers: of the columns (same length as columns), None each: as the object's. nulls: what null-data in a row is:
    the value of the row before (Blue Book 4.3.6), or a value that is not there.
    """

    obis: str = "1.0.99.1.0.255"
    columns: tuple[str, ...] = ()
    scalers: tuple[int | None, ...] = ()
    stamp: Literal["end", "start"] = "end"
    selective: Literal["range", "entry", "none"] = "range"
    restrict_by: str = "0.0.1.0.0.255"
    nulls: Literal["repeat", "missing"] = "repeat"


@dataclass(frozen=True, slots=True)
class EventLog:
    """An event log: a profile generic of times and codes. codes: what a code says, `12=cover opened`."""

    name: str
    obis: str
    codes: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DlmsPush:
    """What a meter sends on its own. items: OBIS of what each value of the body is, where the body does not say so
    itself; `` for what is not wanted. identity: what says which meter it is."""

    items: tuple[str, ...] = ()
    lists: tuple[tuple[str, ...], ...] = ()  # as items, where a meter sends bodies of several lengths
    identity: Literal["title", "serial", "address"] = "title"
    serial_obis: str = "0.0.96.1.0.255"
    step_s: int = 0  # 0: values of the moment; else they belong to a curve of this step, at the push's own time
    plain: bool = False  # pushes come in the clear, or less protected, whatever the policy asks of answers


@dataclass(frozen=True, slots=True)
class DlmsSettings:
    """One meter's link, association, security, services and objects. Times in seconds, lengths in bytes."""

    # The link
    interface: Interface = "hdlc"
    client: int = 16  # client SAP: 16 public, 1 management, 17, 32, 48, 102 ... as the utility set
    address_bytes: int = 0  # length of an HDLC server address: 1, 2 or 4, independent of its value; 0: the shortest
    physical_rule: str = ""  # physical address from the serial number: `SN % 10000 + 1000`; "": as in the address
    negotiate: bool = True  # propose lengths and windows in SNRM; some meters refuse the field
    max_info_tx: int = 128
    max_info_rx: int = 128  # 128 to 2030
    window_tx: int = 1
    window_rx: int = 1  # 1 to 7
    max_info_is_frame: bool = False  # the meter counts the whole frame as its maximum information field
    link_retries: int = 2  # times a frame is sent or asked for again
    reply_s: float = 0.0  # 0: the line's
    interframe_s: float = 0.0  # silence before each frame of ours
    open_quiet_s: float = 0.0  # silence before the link is opened
    reconnect_s: float = 0.0  # silence after DISC before another SNRM
    mode_e: bool = False  # IEC 62056-21 sign-on at 300 7E1, then HDLC
    mode_e_device: str = ""  # device address of the sign-on
    mode_e_start: str = "300 7E1"
    mode_e_baud: int = 0  # speed to go to; 0: what the meter offers
    swap_wports: bool = False  # source and destination wrapper ports the other way round

    # The association
    authentication: Authentication = "none"
    preestablished: bool = False
    challenge_bytes: int = 16  # 8 to 64
    client_title: str = ""  # system title in hex, 16 digits
    send_title: Literal["auto", "always", "never"] = "auto"  # auto: when ciphering or HLS-GMAC needs it
    meter_title: str = ""  # in hex; "": as the meter says in its AARE
    check_title: bool = False  # the meter's title in the AARE must be meter_title
    hls_object: str = "0.0.40.0.0.255"  # whose method 1 replies to the challenge
    conformance: str = "00FE1F"  # proposed, three bytes in hex (Green Book 9.4.6.1)
    max_pdu: int = 1024
    release: Literal["rlrq", "disc"] = "disc"
    rlrq_user_information: bool = False
    public_switch_s: float = 0.0  # silence between the public association and ours
    user_id: int = -1  # calling-AE-invocation-identifier; -1: none

    # Security
    policy: Policy = "none"
    ciphering: Ciphering = "service-glo"
    counter_object: str = ""  # invocation counter of our client in the meter, 0.0.43.1.0.255; "": not readable
    counter_client: int = 16  # client that may read it
    counter_sync: Literal["refused", "always", "never"] = "refused"  # when the meter's counter is asked for
    gmac_counter: Literal["next", "same"] = "next"  # of the reply to the challenge: the next number or that of the AARQ
    check_counter: bool = True  # the meter's numbers must rise
    check_tag: bool = True  # False: the authentication key is not known (pushes of some utilities)

    # Services
    with_list_max: int = 10  # attributes in one GET; 1: none with a list
    selective_access: bool = True
    range_deviation: Literal["meter", "unspecified"] = "meter"  # of the times of a range
    range_local: bool = True  # ranges in the meter's local time, else in UTC
    check_invoke: bool = True  # an answer carries the invoke-id of its request
    confirmed: bool = True
    high_priority: bool = True

    # Clock and text
    clock_obis: str = "0.0.1.0.0.255"
    deviation_reversed: bool = False  # deviation = local - UTC, against the Blue Book
    ignore_deviation: bool = False  # times are local of clock_zone whatever they say
    clock_set: Literal["time", "shift"] = "shift"
    clock_shift_max_s: int = 900  # more is no shift any more: set with care
    text_encoding: str = "utf-8"

    # Objects
    objects: tuple[DlmsObject, ...] = ()  # over what the OBIS catalogue says
    profile: DlmsProfile | None = None  # load profile
    daily: DlmsProfile | None = None  # daily registers
    billing: DlmsProfile | None = None  # registers at the end of billing periods
    event_logs: tuple[EventLog, ...] = ()
    disconnect_obis: str = "0.0.96.3.10.255"
    push: DlmsPush | None = None
