"""A meter's association from opening to release, and the services in it.

    session = Session(settings, address, access)
    yield from session.open()
    datum = yield from session.get(attribute)
    yield from session.close()          # also after an error

Where the meter refuses our invocation counter, it is read with the public client (or taken from the refusal) and the
association is tried once more; where it hangs up instead, it is read before the next one. It is only ever raised.
Errors name the step: link, association, authentication, invocation counter.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hmac import compare_digest
from typing import Final

from headend.access import Access
from headend.conversation import Conversation, Pause
from headend.errors import BadFrame, HeadendError, LineDown, NoAccess, NoAnswer, ProtocolError, Refused, Unsupported
from headend.protocols.dlms import acse, library, security, services
from headend.protocols.dlms.apdu import Apdu
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.channel import Channel, raise_counter
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.failures import (
    CounterRefused,
    DataAccessError,
    at_step,
    rejection,
    service_error_of,
)
from headend.protocols.dlms.link import Link, make_link
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["DataAccessError", "Session"]

HLS_CLASS: Final = 15  # association LN
HLS_METHOD: Final = 1  # reply to HLS authentication
DATA_CLASS: Final = 1
TITLE_MECHANISMS: Final = ("hls-gmac", "hls-sha256")
KEY_MECHANISMS: Final = ("none", "hls-gmac")


class Session:
    """One client's association with one meter. client: instead of the settings'. link, public_link: instead of those
    the settings make; challenge: random bytes of the length asked.

    conformance: names of the services agreed; max_pdu: bytes the meter takes, 0 no limit; meter_title: its system
    title, empty until known; notifications: decrypted notifications that came while we waited.
    """

    def __init__(
        self,
        settings: DlmsSettings,
        address: str,
        access: Access,
        *,
        link: Link | None = None,
        client: int | None = None,
        public_link: Link | None = None,
        challenge: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.settings = settings
        self.address = address
        self.access = access
        self.conformance: frozenset[str] = frozenset()
        self.notifications: list[bytes] = []
        self._link = link or make_link(settings, address, client=client)
        self._public_link = public_link
        self._random = challenge
        self._channel = self._new_channel()
        self._linking = self._linked = self._associated = False

    @property
    def max_pdu(self) -> int:
        """Bytes the meter takes in one APDU; 0: no limit."""
        return self._channel.max_pdu

    @property
    def meter_title(self) -> bytes:
        """The meter's system title; empty until it is known."""
        return self._channel.ciphers.meter_title

    # --- Services

    def get(self, attribute: Attribute, selection: bytes | None = None) -> Conversation[Datum]:
        """One attribute; selection: of `range_descriptor` or `entry_descriptor`. Raises `DataAccessError`."""
        return (yield from services.get(self._channel, attribute, selection))

    def get_many(self, attributes: Sequence[Attribute]) -> Conversation[list[Datum | DataAccessError]]:
        """Several attributes, each with its value or its refusal, in as few requests as the meter takes. That a model
        refuses lists is remembered."""
        results: list[Datum | DataAccessError] = []
        size = self.list_size()
        while len(results) < len(attributes):
            chunk = attributes[len(results) : len(results) + size]
            listed: list[Datum | DataAccessError] = []
            if len(chunk) > 1:
                try:
                    listed = yield from services.get_list(self._channel, chunk)
                except Refused:
                    size = 1
            if any(isinstance(one, Datum) for one in listed):
                results += listed
                continue
            # Not a list, or a list whose every item is refused, which is how some meters refuse lists.
            single = yield from self._one_by_one(chunk)
            if len(chunk) > 1 and any(isinstance(one, Datum) for one in single):
                self.access.memo[_NO_LISTS] = True
                size = 1
            results += single
        return results

    def _one_by_one(self, attributes: Sequence[Attribute]) -> Conversation[list[Datum | DataAccessError]]:
        results: list[Datum | DataAccessError] = []
        for attribute in attributes:
            try:
                results.append((yield from self.get(attribute)))
            except DataAccessError as error:
                results.append(error)
        return results

    def set(self, attribute: Attribute, datum: Datum) -> Conversation[None]:
        """Write one attribute. Raises `DataAccessError`. Without an answer it may have been done."""
        return (yield from services.set_value(self._channel, attribute, datum))

    def action(self, class_id: int, obis: bytes, method: int, datum: Datum | None = None) -> Conversation[Datum | None]:
        """Run a method; what it returns. Raises `ActionError`. Without an answer it may have been done."""
        return (yield from services.action(self._channel, class_id, obis, method, datum))

    def list_size(self) -> int:
        if "multiple_references" not in self.conformance or self.access.memo.get(_NO_LISTS):
            return 1
        return max(1, min(self.settings.with_list_max, services.list_fits(self._channel.room)))

    # --- Opening

    def open(self) -> Conversation[None]:
        """Link, association, authentication. Raises `NoAccess`, `Refused`, `NoAnswer`, `BadFrame`, `LineDown`."""
        with at_step("association"):
            self._check_secrets()
        settings, memo = self.settings, self.access.memo
        counted = settings.policy != "none" or settings.authentication == "hls-gmac"
        readable = counted and settings.counter_object and settings.counter_sync != "never"
        hung_up = ("dlms", "hung up", self.address)
        if readable and (memo.pop(hung_up, False) or settings.counter_sync == "always"):
            yield from self._sync()
        try:
            yield from self._associate()
        except LineDown:
            if readable and self._linked:  # perhaps for our counter, and now there is no line to read it on
                memo[hung_up] = True
            raise
        except (NoAccess, Refused, NoAnswer) as refused:
            if not counted or not self._linked or settings.counter_sync == "never":
                raise
            yield from self.close()
            if not (yield from self._caught_up(refused)):
                raise
            yield from self._associate()
        self._channel.resend = True

    def _caught_up(self, refused: ProtocolError) -> Conversation[bool]:
        """Was our counter behind, and is it not any more?"""
        counter = self.access.counter("tx")
        if isinstance(refused, CounterRefused) and refused.counter is not None:
            raise_counter(counter, refused.counter)
            yield from self._switch()
            return True
        before = counter.value
        if self.settings.counter_object and self.settings.counter_sync == "refused":
            try:
                yield from self._sync()
            except ProtocolError as error:
                problem = refused.problem
                what = f"{problem.what} (and its counter can't be read: {error.problem.what})"
                refused.problem = replace(problem, what=what)
        return counter.value > before

    def _sync(self) -> Conversation[None]:
        """Read our invocation counter in the meter with the public client, and go on above it."""
        settings = replace(
            self.settings,
            client=self.settings.counter_client,
            authentication="none",
            policy="none",
            preestablished=False,
            send_title="never",
            user_id=-1,
        )
        link = self._public_link or make_link(settings, self.address)
        public = Session(settings, self.address, self.access, link=link)
        with at_step("invocation counter"):
            try:
                yield from public.open()
                told = yield from public.get(Attribute(DATA_CLASS, obis_bytes(self.settings.counter_object), 2))
            except HeadendError:
                yield from public.close()
                raise
            yield from public.close()
            if not isinstance(told.value, int) or isinstance(told.value, bool) or told.value < 0:
                raise BadFrame(f"{self.settings.counter_object} holds no counter", remedy="check counter_object")
            raise_counter(self.access.counter("tx"), told.value)
        yield from self._switch()

    def _switch(self) -> Conversation[None]:
        if self.settings.public_switch_s:
            yield Pause(self.settings.public_switch_s)

    def _associate(self) -> Conversation[None]:
        self._channel = channel = self._new_channel()
        self._linking = True
        with at_step("link"):
            yield from self._link.open()
        self._linked = True
        if self.settings.preestablished:
            self.conformance = library.services(bytes.fromhex(self.settings.conformance))
            return
        own = self._random(self.settings.challenge_bytes)
        with at_step("association"):
            answer = yield from self._request_association(channel, own)
        self._associated = True
        if self.settings.authentication.startswith("hls"):
            with at_step("authentication"):
                yield from self._prove(channel, own, answer.value)

    def _new_channel(self) -> Channel:
        settings = self.settings
        ciphers = security.Ciphers(
            settings, self.access, bytes.fromhex(settings.client_title), bytes.fromhex(settings.meter_title)
        )
        if settings.policy != "none" and settings.ciphering.endswith("ded"):
            ciphers.dedicated_key = self.access.secrets.get("dedicated_key") or self._random(security.KEY_BYTES)
        return Channel(self._link, ciphers, settings.max_pdu, self.notifications)

    def _check_secrets(self) -> None:
        settings = self.settings
        control = security.CONTROL[settings.policy]
        gmac = settings.authentication == "hls-gmac"
        if control or gmac:
            security.secret(self.access, "encryption_key", security.KEY_BYTES)
        if control & security.AUTHENTICATED or gmac:
            security.secret(self.access, "authentication_key", security.KEY_BYTES)
        if settings.authentication not in KEY_MECHANISMS:
            security.secret(self.access, "password")
        dedicated = settings.ciphering.endswith("ded") and control
        if dedicated and ("dedicated_key" in self.access.secrets or settings.preestablished):
            security.secret(self.access, "dedicated_key", security.KEY_BYTES)
        if (control or settings.authentication in TITLE_MECHANISMS) and not settings.client_title:
            raise NoAccess("the head-end's own system title is not set", remedy="set client_title")

    def _request_association(self, channel: Channel, own: bytes) -> Conversation[acse.Associated]:
        settings, ciphers = self.settings, channel.ciphers
        request = acse.Associate(
            ciphered=settings.policy != "none",
            mechanism=security.MECHANISMS[settings.authentication],
            initiate=self._initiate(ciphers, ciphers.dedicated_key),
            title=ciphers.client_title if self._sends_title else b"",
            value=own,
            user_id=settings.user_id,
        )
        shown = None
        if settings.authentication == "lls":
            password = self.access.secrets["password"]
            shown = acse.encode_aarq(replace(request, value=b"*" * len(password)))
            request = replace(request, value=password)
        apdu = yield from channel.associate(acse.encode_aarq(request), Apdu.AARE, shown)
        answer = acse.parse_aare(apdu)
        self._accept(channel, answer)
        return answer

    @property
    def _sends_title(self) -> bool:
        settings = self.settings
        needed = settings.policy != "none" or settings.authentication in TITLE_MECHANISMS
        return settings.send_title == "always" or (settings.send_title == "auto" and needed)

    def _initiate(self, ciphers: security.Ciphers, dedicated_key: bytes = b"") -> bytes:
        conformance = bytes.fromhex(self.settings.conformance)
        plain = acse.initiate_request(conformance, self.settings.max_pdu, dedicated_key)
        return ciphers.protect(plain, initiate=True)

    def _accept(self, channel: Channel, answer: acse.Associated) -> None:
        """Is it accepted, by the meter we mean, and on what terms?"""
        if answer.result:
            if answer.user_information[:1] == bytes((Apdu.SERVICE_ERROR,)) and not answer.diagnostic:
                raise service_error_of(answer.user_information)
            raise rejection(answer.result, answer.provider, answer.diagnostic)
        if answer.context in acse.SHORT_NAMES:
            raise Unsupported("the meter answers with short-name referencing", remedy="try another client")
        self._learn_title(channel.ciphers, answer.title)
        plain = channel.ciphers.unwrap(answer.user_information)
        if plain[:1] == bytes((Apdu.SERVICE_ERROR,)):
            raise service_error_of(plain)
        agreed = acse.parse_initiate_response(plain)
        self.conformance = library.services(agreed.conformance)
        channel.max_pdu = agreed.max_pdu

    def _learn_title(self, ciphers: security.Ciphers, title: bytes) -> None:
        configured = bytes.fromhex(self.settings.meter_title)
        if self.settings.check_title and configured and title != configured:
            raise NoAccess(
                f"the meter's system title is {title.hex().upper() or 'not told'}, not {self.settings.meter_title}",
                remedy="check meter_title and the meter's address",
            )
        if len(title) == security.TITLE_BYTES and not configured:
            ciphers.meter_title = title

    def _prove(self, channel: Channel, own: bytes, theirs: bytes) -> Conversation[None]:
        """Passes 3 and 4: answer the meter's challenge, and hold its answer to ours against what it must be."""
        ciphers, mechanism = channel.ciphers, self.settings.authentication
        if not theirs:
            raise NoAccess("the meter sends no challenge", remedy="check authentication of the meter's model")
        if compare_digest(theirs, own):
            raise NoAccess("the meter sends our own challenge back: something else answers in its place")
        if mechanism in TITLE_MECHANISMS and len(ciphers.meter_title) != security.TITLE_BYTES:
            raise NoAccess("the meter's system title is not known", remedy="set meter_title")
        counter = 0
        if mechanism == "hls-gmac":
            same = self.settings.gmac_counter == "same" and ciphers.sent >= 0
            counter = ciphers.sent if same else security.take_counter(self.access.counter("tx"))
        ours = security.Proof(ciphers.client_title, ciphers.meter_title, theirs, own)
        reply = security.challenge_reply(mechanism, ours, self.access, counter)
        try:
            answer = yield from services.action(
                channel,
                HLS_CLASS,
                obis_bytes(self.settings.hls_object),
                HLS_METHOD,
                Datum(Tag.OCTET_STRING, reply),
                confirmed=True,
            )
        except Refused as refused:
            raise NoAccess(
                f"the meter does not accept our answer to its challenge ({refused.problem.what})",
                remedy="check the password or keys, client_title and hls_object",
            ) from refused
        proof = answer.value if answer is not None and isinstance(answer.value, bytes) else b""
        expected = security.Proof(ciphers.meter_title, ciphers.client_title, own, theirs)
        security.check_challenge_reply(mechanism, expected, self.access, proof)

    # --- Closing

    def close(self) -> Conversation[None]:
        """Release the association and close the link, as far as the meter goes along. Raises only `LineDown`."""
        release = self._associated and self.settings.release == "rlrq" and not self._channel.silent
        self._associated = self._linked = False
        if release:
            with suppress(ProtocolError):  # the link is closed all the same, and with it the association
                initiate = self._initiate(self._channel.ciphers) if self.settings.rlrq_user_information else b""
                yield from self._channel.associate(acse.encode_rlrq(initiate), Apdu.RLRE)
        if self._linking:
            self._linking = False
            with suppress(ProtocolError):
                yield from self._link.close()


_NO_LISTS: Final = ("dlms", "no lists")
