"""Which columns of a profile hold the quantities that are wanted, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from headend.conversation import Conversation
from headend.errors import BadFrame, ProtocolError
from headend.protocols.dlms.buffer import Profile
from headend.protocols.dlms.objects import (
    Scale,
    keep_scale,
    known_scale,
    quantity_at,
    scale_attribute,
    scale_of,
)
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsObject
from headend.quantities import Kind, Quantity, quantity

__all__ = ["Column", "columns_of"]

_CAPTURE_TIMES = (5, 6)  # attributes of classes 4 and 5


@dataclass(frozen=True, slots=True)
class Column:
    """A wanted quantity in the rows. time: index of the column that says when a demand occurred."""

    quantity: Quantity
    index: int
    scale: Scale
    time: int | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a quantity is in the rows, and as what object."""

    object: DlmsObject
    index: int
    time: int | None = None


def columns_of(
    session: Session, profile: Profile, names: Iterable[str]
) -> Conversation[tuple[tuple[Column, ...], dict[str, str]]]:
    """The columns of the quantities `names`, and why others have none. Scalers not known are asked for."""
    found = _places(profile)
    wanted: dict[str, _Place] = {}
    lacking: dict[str, str] = {}
    for name in names:
        if name in found:
            wanted[name] = found[name]
        else:
            lacking[name] = f"profile {profile.spec.obis} does not hold it"
    scales = yield from _scales(session, profile, wanted)
    columns = []
    for name, place in wanted.items():
        scale = scales[name]
        if isinstance(scale, Scale):
            columns.append(Column(quantity(name), place.index, scale, place.time))
        else:
            lacking[name] = f"its scaler and unit can't be read: {scale}"
    return tuple(columns), lacking


def _places(profile: Profile) -> dict[str, _Place]:
    """The quantities in the rows; the first column of each."""
    found: dict[str, _Place] = {}
    for index, column in enumerate(profile.layout.columns):
        here = quantity_at(profile.settings, column.obis) if column.obis else None
        if here is None:
            continue
        one, place = here
        if one.name in found:
            if one.kind is Kind.DEMAND and column.index in _CAPTURE_TIMES:
                found[one.name] = replace(found[one.name], time=index)
        elif column.index == place.attribute or not column.class_id:
            found[one.name] = _Place(replace(place, class_id=column.class_id or place.class_id), index)
    return found


def _scales(
    session: Session, profile: Profile, wanted: dict[str, _Place]
) -> Conversation[dict[str, Scale | ProtocolError]]:
    """The scale of each wanted column, or why there is none: set for the column, for the object, or the meter's."""
    meter, access, by_hand = profile.meter, profile.access, profile.spec.scalers
    scales: dict[str, Scale | ProtocolError] = {}
    asked: dict[str, DlmsObject] = {}
    for name, place in wanted.items():
        set_ = by_hand[place.index] if by_hand else None
        known = Scale(set_, place.object.unit) if set_ is not None else known_scale(place.object, meter, access)
        if known is None:
            asked[name] = place.object
        else:
            scales[name] = known
    attributes = [attribute for one in asked.values() if (attribute := scale_attribute(one)) is not None]
    answers = (yield from session.get_many(attributes)) if attributes else []
    for (name, one), answer in zip(asked.items(), answers, strict=True):
        if isinstance(answer, ProtocolError):
            scales[name] = answer
            continue
        try:
            scale = scale_of(answer)
        except BadFrame as error:
            scales[name] = error
        else:
            scales[name] = scale
            keep_scale(one, meter, access, scale)
    return scales
