"""Who may use energy that no meter counts: every reason found against a point, with its numbers and dates, in one list.

A weight of 1 is one clear reason; weights add up. A score is no probability and no proof: it says where to look first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from statistics import median

from billing.analysis.fit import slopes
from billing.analysis.losses import SURE_T, Follower, LossChange

__all__ = ["CLEAR", "Findings", "Reason", "Sign", "StepDown", "Suspect", "step_down", "suspects", "typical"]

CLEAR = 1.0
"""From this score on a point is a suspect."""

_LEAST_T = 2.5  # below it nothing is said
_MOST_WEIGHT = 4.0
_STEP_SURE_T = 8.0  # the surest of many days, and habits and journeys are no theft: more than one test would need
_LEAST_FALL = 0.2
_LEAST_SIDE_DAYS = 7
_SEARCHED_FROM = 2  # a fall nearer to an end than the days that are needed is found, and not believed
_FEWEST_POINTS = 5  # a typical day of fewer points is none
_SAME_TIME = timedelta(days=3)
_SIGNS_ADD = 0.1  # what each further time of the same sign adds
_MOST_ADDED = 5


@dataclass(frozen=True, slots=True)
class StepDown:
    """From `day` on a point used less than before, for good, as far as is known. before and after: kWh a day, on days
    such as its district's typical one; t: how sure, positive."""

    day: date
    before: float
    after: float
    t: float

    @property
    def fall(self) -> float:
        """The part that is gone, 0 to 1."""
        return 1 - self.after / self.before


@dataclass(frozen=True, slots=True)
class Sign:
    """What a meter or its concentrator told: a cover opened, a current lost.

    after: it came to be after this read of the status word; None when the time itself is known, or when it stood so at
    the first read. outcome_id: what told it.
    """

    at: datetime
    name: str
    weight: float
    outcome_id: int = 0
    after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. kind: `follows` (the district's loss follows the use), `step_down`, `same_time` (the fall came with a
    rise of the loss) or `sign`. since: the first day it speaks of, None when it speaks of all."""

    kind: str
    weight: float
    text: str
    since: date | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A usage point with its reasons, the weightiest first."""

    point: str
    district: str
    score: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one district. Points without a finding need not stand in the mappings."""

    district: str
    followers: Sequence[Follower] = ()
    follow_unit: str = "hours"
    change: LossChange | None = None
    falls: Mapping[str, StepDown] = field(default_factory=dict)
    signs: Mapping[str, Sequence[Sign]] = field(default_factory=dict)


# -- falls of use ------------------------------------------------------------------------------------------------------


def typical(uses: Mapping[str, Sequence[Decimal | None]]) -> list[float]:
    """How much was used on each day, as a part of each point's mean: the median over points. 1 where too few are known.

    Dividing by it takes out weather and holidays, which all have in common.
    """
    means = {}
    for point, values in uses.items():
        known = [float(value) for value in values if value is not None]
        if known and sum(known) > 0:
            means[point] = sum(known) / len(known)
    length = max((len(values) for values in uses.values()), default=0)
    found = []
    for i in range(length):
        parts = [float(value) / means[p] for p, row in uses.items() if p in means and (value := row[i]) is not None]
        found.append(median(parts) if len(parts) >= _FEWEST_POINTS else 1.0)
    return [value if value > 0 else 1.0 for value in found]


def step_down(days: Sequence[date], own: Sequence[Decimal | None], norm: Sequence[float]) -> StepDown | None:
    """The day from which on a point used less, if it fell by a fifth or more; None when there is no such day.

    norm: `typical` of its district. Seven known days must lie on either side, and the last seven must be as low: a
    journey from which people came back, or are yet to come back, is no fall.
    """
    rows = [(day, float(use) / part) for day, use, part in zip(days, own, norm, strict=True) if use is not None]
    values = [value for _, value in rows]
    splits = range(_SEARCHED_FROM, len(rows) - _SEARCHED_FROM + 1)
    if len(rows) < 2 * _LEAST_SIDE_DAYS:
        return None
    steps = [[float(i >= split) for i in range(len(rows))] for split in splits]
    judged = slopes(values, [[1.0] * len(rows)], steps)
    best = min(range(len(judged)), key=lambda i: judged[i].t)
    cut, t = splits[best], -judged[best].t
    if t < _LEAST_T or not _LEAST_SIDE_DAYS <= cut <= len(rows) - _LEAST_SIDE_DAYS:
        return None
    before, after = _mean(values[:cut]), _mean(values[cut:])
    if max(after, _mean(values[-_LEAST_SIDE_DAYS:])) > (1 - _LEAST_FALL) * before:
        return None
    return StepDown(rows[cut][0], before, after, t)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- together ----------------------------------------------------------------------------------------------------------


def suspects(findings: Findings, tz: tzinfo) -> list[Suspect]:
    """Every point with a reason, the highest score first. tz: the zone of the days in the texts."""
    reasons: dict[str, list[Reason]] = defaultdict(list)
    for follower in findings.followers:
        if follower.t >= _LEAST_T:
            reasons[follower.point].append(_follows(follower, findings))
    for point, fall in findings.falls.items():
        reasons[point].append(_fell(fall))
        if together := _same_time(fall, findings.change):
            reasons[point].append(together)
    for point, signs in findings.signs.items():
        reasons[point] += _told(signs, tz)
    found = []
    for point, own in reasons.items():
        if own:
            ordered = tuple(sorted(own, key=lambda reason: -reason.weight))
            found.append(Suspect(point, findings.district, sum(reason.weight for reason in own), ordered))
    return sorted(found, key=lambda suspect: (-suspect.score, suspect.point))


def _weight(t: float, sure_t: float) -> float:
    return min(t / sure_t, _MOST_WEIGHT)


def _follows(follower: Follower, findings: Findings) -> Reason:
    text = (
        f"the district's loss follows its use over {follower.rows} {findings.follow_unit} (t {follower.t:.1f}): "
        f"{follower.slope:.2f} kWh lost for each kWh counted, as if {follower.hidden:.0%} of the use, "
        f"{follower.hidden_kwh:.0f} kWh, were not counted"
    )
    return Reason("follows", _weight(follower.t, SURE_T), text)


def _fell(fall: StepDown) -> Reason:
    text = (
        f"use fell from {fall.before:.2f} to {fall.after:.2f} kWh a day ({-fall.fall:.0%}) on {fall.day} "
        f"and stayed there (t {fall.t:.1f}; what all its district did is taken out)"
    )
    return Reason("step_down", _weight(fall.t, _STEP_SURE_T), text, fall.day)


def _same_time(fall: StepDown, change: LossChange | None) -> Reason | None:
    """A fall within three days of a rise of the loss; half a reason more when it could be the same energy."""
    if change is None or change.t < 0 or abs(change.day - fall.day) > _SAME_TIME:
        return None
    rise = float(change.after.loss / change.after.days - change.before.loss / change.before.days)
    less = fall.before - fall.after
    alike = less / 2 <= rise <= less * 2
    text = (
        f"its use fell by {less:.2f} kWh a day within three days of {change.day}, "
        f"when the district's loss changed by {rise:+.2f} kWh a day"
    )
    return Reason("same_time", 1.0 if alike else 0.5, text, min(fall.day, change.day))


def _told(signs: Iterable[Sign], tz: tzinfo) -> list[Reason]:
    """One reason for each thing told, however often; its times."""
    named: dict[str, list[Sign]] = defaultdict(list)
    for sign in signs:
        named[sign.name].append(sign)
    found = []
    for name, told in named.items():
        told.sort(key=lambda sign: sign.at)
        first, last = told[0], told[-1]
        weight = first.weight + _SIGNS_ADD * min(len(told) - 1, _MOST_ADDED)
        between = f"between {_when(first.after, tz)} and " if first.after else ""
        text = f"{name}: {between}{_when(first.at, tz)}"
        text += f", {len(told)} times, last {_when(last.at, tz)}" if len(told) > 1 else ""
        text += f" (outcome {last.outcome_id})" if last.outcome_id else ""
        found.append(Reason("sign", weight, text, first.at.astimezone(tz).date()))
    return found


def _when(moment: datetime, tz: tzinfo) -> str:
    return moment.astimezone(tz).strftime("%Y-%m-%d %H:%M")
