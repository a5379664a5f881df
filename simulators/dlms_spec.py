"""What kind of DLMS/COSEM meter one is: who it talks to, how it is protected, what it holds, where it is odd."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "AUTHENTICATIONS",
    "FAIL_AT",
    "FAIL_HOW",
    "LLS_READER",
    "MANAGER_GMAC",
    "POLICIES",
    "PUBLIC",
    "PUSH_SHAPES",
    "DlmsClient",
    "DlmsQuirks",
    "DlmsSpec",
]

AUTHENTICATIONS = ("none", "lls", "hls-md5", "hls-sha1", "hls-gmac", "hls-sha256")
POLICIES = ("none", "authenticated", "encrypted", "authenticated-encrypted")
FAIL_AT = ("snrm", "aarq", "hls", "get", "block", "set", "action", "release")
FAIL_HOW = ("silent", "close", "refuse", "garbage", "exception")
PUSH_SHAPES = ("objects", "pairs", "time-pairs", "entries", "structure-entries", "untagged", "position")


@dataclass(frozen=True, slots=True)
class DlmsClient:
    """A client the meter knows.

    sap: its address. authentication: one of AUTHENTICATIONS. password: of LLS, or the secret of HLS with MD5, SHA-1
    and SHA-256. policy: the least protection its requests need, one of POLICIES; answers are protected as the request
    was. access: `all`, `read` (no SET, no ACTION), `public` (clock, names, invocation counters). preestablished: it is
    associated without asking. counter_obis: which object shows the client's invocation counter.
    """

    sap: int = 16
    authentication: str = "none"
    password: bytes = field(default=b"", repr=False)
    policy: str = "none"
    access: str = "all"
    preestablished: bool = False
    counter_obis: str = "0.0.43.1.0.255"


PUBLIC = DlmsClient(16, access="public")
LLS_READER = DlmsClient(32, "lls", b"12345678")
MANAGER_GMAC = DlmsClient(1, "hls-gmac", policy="authenticated-encrypted")


@dataclass(frozen=True, slots=True)
class DlmsQuirks:
    """Where a meter differs from the books. Everything off by default.

    The link. snrm_field: what an information field in SNRM brings: `works`, `silent`, `dm`, `frmr`. ua_field: UA
    carries the negotiated parameters. address_bytes: the only length of address it hears, 0 for all. frame_is_max: it
    counts the whole frame as its longest information field. wrong_final: leaves out the F bit. reconnect_s: deaf to
    SNRM for so long after DISC. mode_e: empty, `works`, `ignore-speed` (offers 9600, stays at 300), `readout` (sends
    registers as text instead). swap_wports: its wrapper ports the other way round.

    The association. hls_object: whose method 1 it wants the reply at. challenge_bytes: of its own challenge.
    longest_challenge: a longer one of the client breaks its reply. wrong_hls_reply: its own reply is wrong. title: it
    says its system title in AARE. known_title: the only title of a client it takes, in hex. rlrq: `works`, `silent`,
    `no-user-information` (refuses one that carries it and is not ciphered), `exception`. hls_same_counter: its own
    reply to the challenge repeats the counter of its AARE. refuse_max_pdu: it refuses a client's PDU size above this.

    Security. on_bad: what wrong keys and old counters bring: `exception`, `close`, `silent`. counter_in_exception: an
    old counter is answered with the last one it knows. empty_title: general-glo without its title. wrong_tag: tags of
    its answers are wrong. counter_stuck: its own counter does not rise.

    Services. with_list: `works`, `refuse` (every item refused), `exception`, `none` (not announced, exception).
    with_list_max: more items are refused. selective: `works`, `refuse`, `none` (not announced, refused), `ignore`
    (sends all), `range-only`, `entry-only`. first_block: number of the first block. always_blocks: even what fits
    comes as a block that is the last. empty_last_block: an empty block ends a long answer. invoke_stuck: its invoke id
    never changes. stale: each answer to a service is preceded by the one before. push_amid: a DataNotification goes
    before every answer to a GET. gbt: what is longer comes by general block transfer in blocks of so many bytes.
    gbt_lose: number of a block it forgets once.

    Clock and profiles. deviation: `blue-book`, `reversed`, `unspecified`. range_times: how it takes the times of a
    range: `as-said`, `local`, `utc`. range_deviation: `any`, `required` (refuses 8000), `refused` (refuses any other).
    null_rows: repeated values and clocks after the first row are null-data. time_tag: its clock and the clock in rows
    as `octets` (tag 9), `date-time` (tag 25), or `unix` (rows only, double-long-unsigned). no_hundredths: FF in their
    place.

    fail_at: the step where it fails, one of FAIL_AT; fail_how: one of FAIL_HOW; fail_after: how often that step works
    first; fail_times: how often it fails then, 0 for ever.
    """

    snrm_field: str = "works"
    ua_field: bool = True
    address_bytes: int = 0
    frame_is_max: bool = False
    wrong_final: bool = False
    reconnect_s: float = 0.0
    mode_e: str = ""
    swap_wports: bool = False

    hls_object: str = "0.0.40.0.0.255"
    challenge_bytes: int = 16
    longest_challenge: int = 64
    wrong_hls_reply: bool = False
    title: bool = True
    known_title: str = ""
    rlrq: str = "works"
    hls_same_counter: bool = False
    refuse_max_pdu: int = 0

    on_bad: str = "exception"
    counter_in_exception: bool = True
    empty_title: bool = False
    wrong_tag: bool = False
    counter_stuck: bool = False

    with_list: str = "works"
    with_list_max: int = 255
    selective: str = "works"
    first_block: int = 1
    always_blocks: bool = False
    empty_last_block: bool = False
    invoke_stuck: bool = False
    stale: bool = False
    push_amid: bool = False
    gbt: int = 0
    gbt_lose: int = 0

    deviation: str = "blue-book"
    range_times: str = "as-said"
    range_deviation: str = "any"
    null_rows: bool = False
    time_tag: str = "octets"
    no_hundredths: bool = False

    fail_at: str = ""
    fail_how: str = "silent"
    fail_after: int = 0
    fail_times: int = 0


@dataclass(frozen=True, slots=True)
class DlmsSpec:
    """One meter. Keys are 16 bytes, titles 8; none of them is shown.

    serial: its number, digits. logical, physical: its HDLC address; physical None: whatever it is called by. wrapper
    port: logical. title: system title, empty for one made of the serial number. clients: who may associate.
    first_counter: invocation counter of its first protected APDU. client_counters: SAP and the last counter it has
    seen from there. step_min: of the load profile. columns, daily_columns: OBIS of what rows hold. zone: IANA name or
    empty for `zone_offset_s` all year. clock_error_s, clock_drift_ppm: how wrong the clock is. scaler: power of ten of
    energies in Wh. digits: where counters roll over. phases: 1 or 3. max_info, window: the most it takes and sends.
    conformance: services it offers, general block transfer besides where `gbt` is set.
    relay: `works` or `stuck`. control_mode: of the disconnect control, 0 to 6. model: its name.
    """

    serial: str = "12345678"
    logical: int = 1
    physical: int | None = 17
    title: bytes = b""
    manufacturer: str = "SIM"
    model: str = "SIM100"
    clients: tuple[DlmsClient, ...] = (PUBLIC, LLS_READER, MANAGER_GMAC)
    encryption_key: bytes = field(default=bytes(range(16)), repr=False)
    authentication_key: bytes = field(default=bytes(range(0xD0, 0xE0)), repr=False)
    first_counter: int = 0
    client_counters: tuple[tuple[int, int], ...] = ()
    step_min: int = 15
    memory_days: int = 62
    daily_days: int = 62
    billing_months: int = 12
    columns: tuple[str, ...] = ("0.0.1.0.0.255", "0.0.96.10.1.255", "1.0.1.8.0.255")
    daily_columns: tuple[str, ...] = ("0.0.1.0.0.255", "0.0.96.10.1.255", "1.0.1.8.0.255", "1.0.2.8.0.255")
    zone: str = ""
    zone_offset_s: int = 28_800
    clock_error_s: int = 0
    clock_drift_ppm: int = 0
    scaler: int = 0
    digits: int = 9
    phases: int = 1
    max_info: int = 2030
    window: int = 7
    max_pdu: int = 1024
    conformance: int = 0x405E9D
    relay: str = "works"
    control_mode: int = 4
    quirks: DlmsQuirks = DlmsQuirks()

    def system_title(self) -> bytes:
        """Eight bytes: three letters, then the serial number."""
        return self.title or self.manufacturer.encode()[:3] + (int(self.serial) & 0xFFFFFFFFFF).to_bytes(5, "big")

    def client(self, sap: int) -> DlmsClient | None:
        """Who has this address."""
        return next((client for client in self.clients if client.sap == sap), None)
