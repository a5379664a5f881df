"""One client's association with a meter: who it is, what protects it, which APDU answers which (Green Book 9)."""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest

from simulators import dlms_axdr as axdr
from simulators.dlms_acse import MECHANISMS, Aarq, Initiate, aare, initiate_response, read_aarq, read_initiate, rlre
from simulators.dlms_axdr import Malformed, Value
from simulators.dlms_cipher import gmac, hls_answer
from simulators.dlms_gbt import BlockTransfer
from simulators.dlms_hdlc import HangUp
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_objects import Denied, Thing, things_of
from simulators.dlms_push import push_apdu
from simulators.dlms_security import Shield, Shielding
from simulators.dlms_services import NOT_ALLOWED, Mute, Refusal, Services
from simulators.dlms_spec import DlmsClient

__all__ = ["Association"]

_REJECTED = 1
_NO_REASON, _NO_CONTEXT, _NO_TITLE, _NO_MECHANISM, _MECHANISM_REQUIRED, _FAILED, _REQUIRED = 1, 2, 3, 11, 12, 13, 14
_PLAIN, _CIPHERED = 1, 3
_GENERAL_PROTECTION, _GBT, _SELECTIVE, _LISTS = 0x400000, 0x200000, 0x000004, 0x000200
_TRANSPORT_OVERHEAD = 40  # of protection, at most


@dataclass(slots=True)
class _Partner:
    """The client of an association under way."""

    client: DlmsClient
    title: bytes
    challenge: bytes
    own_challenge: bytes
    own_counter: int


class Association:
    """`answer` is the whole of it: an APDU in, APDUs out, none for silence. HangUp closes the connection."""

    def __init__(self, meter: DlmsMeter, sap: int) -> None:
        self.meter = meter
        self.sap = sap
        self._client = meter.spec.client(sap)
        self._shielding = Shielding(meter, sap)
        self._services: Services | None = None
        self._partner: _Partner | None = None  # between AARE and the reply to its challenge
        self._blocks = BlockTransfer(meter.spec.quirks)
        self._gbt = False
        self._stale = b""
        self._pushes: list[bytes] = []
        self.forget()

    # -- what a link needs -----------------------------------------------------------------------------------------

    def forget(self) -> None:
        """The link is gone, and the association with it."""
        self._services = self._partner = None
        self._shielding.reset()
        self._blocks.reset()
        self._gbt = False
        self._stale = b""
        self._pushes.clear()
        if self._client is not None and self._client.preestablished:
            self._open(self._client, 0)

    def fails(self, step: str) -> str:
        """As the meter."""
        return self.meter.fails(step)

    def noise(self) -> bytes:
        """As the meter."""
        return self.meter.noise()

    def unasked(self) -> list[bytes]:
        """What the meter sends before its answer; asked once."""
        pushes, self._pushes = self._pushes, []
        return pushes

    def answer(self, apdu: bytes) -> list[bytes]:
        """The APDUs that answer `apdu`."""
        try:
            if apdu[:1] == b"\xe0":
                whole, answers = self._blocks.hear(apdu)
                return answers if whole is None else self._blocks.send(self._answer(whole), self._blocks.got)
            answers = self._answer_all(apdu)
        except Mute:
            return []
        except Refusal as no:
            return [no.apdu]
        except (Malformed, IndexError):
            return [NOT_ALLOWED]
        if self._gbt and len(answers) == 1 and len(answers[0]) > self.meter.spec.quirks.gbt:
            return self._blocks.send(answers[0])
        return answers

    def _answer_all(self, apdu: bytes) -> list[bytes]:
        answer = self._answer(apdu)
        quirks = self.meter.spec.quirks
        if self._services is None or not quirks.stale or answer[:1] in (b"\x61", b"\x63"):
            return [answer]
        before, self._stale = self._stale, answer
        return [before, answer] if before else [answer]

    def _answer(self, apdu: bytes) -> bytes:
        if not apdu:
            raise Malformed("empty")
        if apdu[0] == 0x60:
            return self._associate(apdu)
        if apdu[0] == 0x62:
            return self._release(apdu)
        plain, shield = self._shielding.open(apdu)
        self._check_policy(shield)
        if self._services is None and self._partner is None:
            raise Refusal(NOT_ALLOWED)
        if self.meter.spec.quirks.push_amid and plain[:1] == b"\xc0":
            self._pushes.append(push_apdu(self.meter, "objects", shield="general-glo" if shield else ""))
        if self._partner is not None:
            return self._shielding.close(self._reply_to_hls(plain), shield)
        assert self._services is not None
        try:
            return self._shielding.close(self._services.answer(plain), shield)
        except Refusal as no:
            raise no

    def _check_policy(self, shield: Shield | None) -> None:
        policy = self._client.policy if self._client else "none"
        needed = {"none": 0, "authenticated": 0x10, "encrypted": 0x20, "authenticated-encrypted": 0x30}[policy]
        if (shield.control if shield else 0) & needed != needed:
            raise Refusal(NOT_ALLOWED)

    # -- AARQ ----------------------------------------------------------------------------------------------------

    def _associate(self, apdu: bytes) -> bytes:
        asked = read_aarq(apdu)
        how = self.meter.fails("aarq")
        if how == "silent":
            raise Mute
        if how == "close":
            raise HangUp
        if how == "garbage":
            raise Refusal(self.meter.noise())
        if how == "exception":
            raise Refusal(NOT_ALLOWED)
        self.forget()
        wrong = _NO_REASON if how == "refuse" else self._refused(asked)
        if wrong:
            return self._reject(asked, wrong)
        assert self._client is not None
        self._shielding.title = asked.title
        raw, shield = asked.user_information, None
        if raw[:1] in (b"\x21", b"\xdb"):
            raw, shield = self._shielding.open(raw)
        if self._client.policy != "none" and shield is None and asked.context == _CIPHERED:
            return self._reject(asked, _NO_REASON)
        initiate = read_initiate(raw)
        wrong_initiate = self._initiate_error(initiate)
        if wrong_initiate:
            return self._reject(asked, _NO_REASON, b"\x0e\x01\x06" + bytes((wrong_initiate,)))
        return self._accept(asked, self._client, initiate, shield)

    def _refused(self, asked: Aarq) -> int:
        """The diagnostic that sends this client away; 0 if none."""
        client, quirks = self._client, self.meter.spec.quirks
        if client is None:
            return _NO_REASON
        ciphered = client.policy != "none"
        if asked.context not in (_PLAIN, _CIPHERED) or (ciphered and asked.context != _CIPHERED):
            return _NO_CONTEXT
        mechanism = MECHANISMS.get(asked.mechanism or 0)
        if client.authentication != "none" and asked.mechanism in (None, 0):
            return _MECHANISM_REQUIRED if asked.mechanism is None else _REQUIRED
        if mechanism != client.authentication:
            return _NO_MECHANISM
        if client.authentication == "lls" and not compare_digest(asked.value, client.password):
            return _FAILED
        if client.authentication.startswith("hls") and not 8 <= len(asked.value) <= 64:
            return _FAILED
        needs_title = ciphered or client.authentication in ("hls-gmac", "hls-sha256")
        if (needs_title and len(asked.title) != 8) or (
            quirks.known_title and asked.title != bytes.fromhex(quirks.known_title)
        ):
            return _NO_TITLE
        return 0

    def _initiate_error(self, initiate: Initiate) -> int:
        """1 version too low, 2 nothing in common, 3 PDU too short; 0 fine."""
        limit = self.meter.spec.quirks.refuse_max_pdu
        if initiate.version < 6:
            return 1
        if not initiate.conformance & self._conformance():
            return 2
        if 0 < initiate.max_pdu < 12 or (limit and not 0 < initiate.max_pdu <= limit):
            return 3
        return 0

    def _conformance(self) -> int:
        quirks = self.meter.spec.quirks
        mine = self.meter.spec.conformance | (_GBT if quirks.gbt else 0)
        if quirks.selective == "none":
            mine &= ~_SELECTIVE
        return mine & ~_LISTS if quirks.with_list == "none" else mine

    def _reject(self, asked: Aarq, diagnostic: int, user_information: bytes = b"") -> bytes:
        title = self.meter.title if self.meter.spec.quirks.title and asked.context == _CIPHERED else b""
        context = asked.context if asked.context in (_PLAIN, _CIPHERED) else _PLAIN
        return aare(context, _REJECTED, diagnostic, user_information, title=title)

    def _accept(self, asked: Aarq, client: DlmsClient, initiate: Initiate, shield: Shield | None) -> bytes:
        meter = self.meter
        agreed = initiate.conformance & self._conformance()
        self._shielding.dedicate(initiate.dedicated_key)
        self._gbt = bool(agreed & _GBT)
        counter = meter.counter
        information = self._shielding.close(initiate_response(agreed, meter.spec.max_pdu), shield)
        wanted = asked.context == _CIPHERED or client.authentication in ("hls-gmac", "hls-sha256")
        title = meter.title if wanted and meter.spec.quirks.title else b""
        self._max_pdu = min(initiate.max_pdu or 0xFFFF, meter.spec.max_pdu)
        if not client.authentication.startswith("hls"):
            self._open(client, self._max_pdu)
            return aare(asked.context, 0, 0, information, title=title)
        challenge = meter.challenge()
        self._partner = _Partner(client, asked.title, asked.value, challenge, counter)
        return aare(
            asked.context, 0, _REQUIRED, information, title=title, mechanism=asked.mechanism or 0, challenge=challenge
        )

    def _open(self, client: DlmsClient, max_pdu: int) -> None:
        self._partner = None
        room = (max_pdu or self.meter.spec.max_pdu) - (_TRANSPORT_OVERHEAD if client.policy != "none" else 0)
        things = things_of(self.meter, client)
        things["0.0.40.0.0.255"] = _association_object(self, things)
        self._services = Services(self.meter, things, max(room, 20))

    # -- HLS -----------------------------------------------------------------------------------------------------

    def _reply_to_hls(self, apdu: bytes) -> bytes:
        """Pass 3 in, pass 4 out: ACTION on method 1 of the association object."""
        partner, quirks = self._partner, self.meter.spec.quirks
        assert partner is not None
        wanted = b"\x00\x0f" + axdr.obis(quirks.hls_object) + b"\x01\x01"
        if apdu[:2] != b"\xc3\x01" or apdu[3:13] != wanted:
            raise Refusal(NOT_ALLOWED)
        how = self.meter.fails("hls")
        if how == "silent":
            raise Mute
        if how == "close":
            raise HangUp
        if how in ("garbage", "exception"):
            raise Refusal(self.meter.noise() if how == "garbage" else NOT_ALLOWED)
        value, _ = axdr.decode(apdu, 13)
        head = b"\xc7\x01" + apdu[2:3]
        if how or value[0] != 9 or not self._proves(partner, value[1]):
            self._partner = None
            return head + b"\xfa\x00"
        answer = self._own_proof(partner)
        if quirks.wrong_hls_reply or len(partner.challenge) > quirks.longest_challenge:
            answer = answer[:-1] + bytes((answer[-1] ^ 0x01,))
        self._open(partner.client, self._max_pdu)
        return head + b"\x00\x01\x00" + axdr.octets(answer)

    def _proves(self, partner: _Partner, said: bytes) -> bool:
        spec, client = self.meter.spec, partner.client
        if client.authentication != "hls-gmac":
            right = hls_answer(
                client.authentication,
                client.password,
                partner.own_challenge,
                partner.title,
                self.meter.title,
                partner.challenge,
            )
            return compare_digest(right, said)
        if len(said) != 17 or said[0] != 0x10:
            return False
        counter = int.from_bytes(said[1:5], "big")
        right = gmac(spec.encryption_key, spec.authentication_key, partner.title, counter, partner.own_challenge)
        self.meter.seen[self.sap] = max(self.meter.seen.get(self.sap, -1), counter)
        return compare_digest(right, said)

    def _own_proof(self, partner: _Partner) -> bytes:
        spec, client = self.meter.spec, partner.client
        if client.authentication != "hls-gmac":
            return hls_answer(
                client.authentication,
                client.password,
                partner.challenge,
                self.meter.title,
                partner.title,
                partner.own_challenge,
            )
        counter = partner.own_counter if spec.quirks.hls_same_counter else self.meter.next_counter()
        return gmac(spec.encryption_key, spec.authentication_key, self.meter.title, counter, partner.challenge)

    # -- release -------------------------------------------------------------------------------------------------

    def _release(self, apdu: bytes) -> bytes:
        how = self.meter.fails("release")
        quirks = self.meter.spec.quirks
        at = apdu.find(b"\xbe", 2)
        information = apdu[at + 4 :] if at >= 0 else b""
        if how == "silent" or quirks.rlrq == "silent":
            raise Mute
        if how == "close":
            raise HangUp
        if how == "garbage":
            raise Refusal(self.meter.noise())
        unciphered = bool(information) and information[:1] != b"\x21"
        if how == "exception" or quirks.rlrq == "exception" or (quirks.rlrq == "no-user-information" and unciphered):
            raise Refusal(b"\xd8\x01\x02")
        if how == "refuse":
            return rlre(1)
        shield = self._shielding.open(information)[1] if information[:1] == b"\x21" else None
        answer = b""
        if shield is not None:
            answer = self._shielding.close(initiate_response(self._conformance(), self.meter.spec.max_pdu), shield)
        self.forget()
        return rlre(0, answer)


def _association_object(association: Association, things: dict[str, Thing]) -> Thing:
    """Class 15, the current association: object list, partners, context, mechanism, status."""
    client = association.meter.spec.client(association.sap)
    mechanism = next((k for k, name in MECHANISMS.items() if client and name == client.authentication), 0)
    names = axdr.octets(bytes((0x60, 0x85, 0x74, 0x05, 0x08, 0x02, mechanism)))

    def reply(_: Value) -> None:
        raise Denied(3)  # the association is open already

    return Thing(
        15,
        "0.0.40.0.0.255",
        {
            2: lambda: axdr.array(_element(thing) for thing in things.values()),
            3: lambda: axdr.structure(axdr.i8(association.sap), axdr.u16(association.meter.spec.logical)),
            6: lambda: names,
            8: lambda: axdr.enum(2),
        },
        does={1: reply},
        version=1,
    )


def _element(thing: Thing) -> bytes:
    """One object of the list with its access rights: 0 none, 1 read, 2 write, 3 both."""
    numbers = sorted({1, *thing.reads, *thing.writes})
    selectors = axdr.array([axdr.i8(1), axdr.i8(2)])
    rights = [
        axdr.structure(
            axdr.i8(number),
            axdr.enum((number == 1 or number in thing.reads) + 2 * (number in thing.writes)),
            selectors if thing.profile is not None and number == 2 else axdr.null(),
        )
        for number in numbers
    ]
    methods = [axdr.structure(axdr.i8(number), axdr.enum(1)) for number in sorted(thing.does)]
    return axdr.structure(
        axdr.u16(thing.class_id),
        axdr.u8(thing.version),
        axdr.octets(axdr.obis(thing.obis)),
        axdr.structure(axdr.array(rights), axdr.array(methods)),
    )
