"""A bill as plain data for programs: everything it holds, down to the values of the meters. Numbers are text."""

from __future__ import annotations

from typing import Any

from billing.model import (
    Bill,
    BillLine,
    Derived,
    Determinant,
    Hold,
    IntervalPart,
    Parent,
    RegisterEnd,
    RegisterPart,
    UsedBefore,
)

__all__ = ["bill_data"]


def bill_data(bill: Bill, *, customer: str = "", invoice: str = "", reversed_by: str = "") -> dict[str, Any]:
    """A bill as a JSON object. findings: what was odd about an issued bill; holds: why a held one is held."""
    holds = [_hold(hold) for hold in bill.holds]
    return {
        "number": bill.number,
        "invoice": invoice,
        "account": bill.account,
        "customer": customer,
        "usage_point": bill.usage_point,
        "start": bill.window.start.isoformat(),
        "end": bill.window.end.isoformat(),
        "zone": bill.zone,
        "state": bill.state,
        "issued_at": bill.issued_at.isoformat() if bill.issued_at else None,
        "tariff": {"id": bill.tariff, "version": bill.tariff_version, "sha256": bill.tariff_sha},
        "segments": [{"start": start.isoformat(), "sha256": sha} for start, sha in bill.segments],
        "as_of": bill.as_of,
        "sequence": bill.sequence,
        "replaces": bill.replaces,
        "reversed_by": reversed_by or bill.reversed_by,
        "currency": bill.currency,
        "total": str(bill.total) if bill.state != "held" and bill.total is not None else None,
        "lines": [_line(line) for line in bill.lines],
        "determinants": [_determinant(determinant) for determinant in bill.determinants],
        "holds": holds if bill.state == "held" else [],
        "findings": holds if bill.state != "held" else [],
    }


def _line(line: BillLine) -> dict[str, Any]:
    return {
        "code": line.code,
        "text": line.text,
        "quantity": f"{line.quantity:f}",
        "unit": line.unit,
        "price": f"{line.price:f}",
        "amount": str(line.amount),
        "determinant": line.determinant,
    }


def _determinant(determinant: Determinant) -> dict[str, Any]:
    used = determinant.used_before
    return {
        "name": determinant.name,
        "value": f"{determinant.value:f}",
        "unit": determinant.unit,
        "used_before": None if used is None else f"{used:f}",
        "counts": {quality.name.lower(): count for quality, count in determinant.counts},
        "parents": [_parent(parent) for parent in determinant.parents],
    }


def _parent(parent: Parent) -> dict[str, Any]:
    own: dict[str, Any]
    match parent:
        case RegisterPart():
            own = {"kind": "register", "start": _end(parent.start), "end": _end(parent.end)}
        case IntervalPart():
            own = {
                "kind": "intervals",
                "start": parent.window.start.isoformat(),
                "end": parent.window.end.isoformat(),
                "step_s": parent.step_s,
                "count": parent.count,
                "sum_units": parent.sum_units,
                "as_of": parent.as_of,
            }
        case UsedBefore():
            energy = f"{parent.energy:f}"
            return {"kind": "used_before", "bill": parent.number, "energy": energy, "at": parent.at.isoformat()}
        case Derived():
            return {"kind": "derived", "from": parent.name, "value": f"{parent.value:f}"}
    return own | {
        "meter": parent.meter,
        "quantity": parent.quantity,
        "multiplier": f"{parent.multiplier:f}",
        "wrap_units": parent.wrap_units,
        "value": f"{parent.value:f}",
    }


def _end(end: RegisterEnd) -> dict[str, Any]:
    return {
        "at": end.at.isoformat(),
        "units": end.units,
        "quality": end.quality.name.lower(),
        "source": end.source.name.lower(),
        "outcome": end.outcome_id,
    }


def _hold(hold: Hold) -> dict[str, Any]:
    return {
        "code": hold.code,
        "what": hold.what,
        "remedy": hold.remedy,
        "meter": hold.meter,
        "start": hold.start.isoformat() if hold.start else None,
        "end": hold.end.isoformat() if hold.end else None,
        "count": hold.count,
    }
