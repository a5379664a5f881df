"""What the simulated gateways say, as the head-end understands it with the mappings it ships: value for value."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from config.mqtt_mapping import SHIPPED_MAPPINGS, load_mappings
from headend.errors import BadFrame
from headend.mqtt.batch import Batch
from headend.mqtt.canonical import CANONICAL
from headend.mqtt.dialect import Dialect, matches
from simulators.clock import SettableClock
from simulators.mqtt_acrel import AcrelDomestic, AcrelOverseas
from simulators.mqtt_bad import BAD, bad
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec, Out
from simulators.mqtt_firmware import FIRMWARES, messages, truths
from simulators.mqtt_meters import ENERGY, Truth, fleet

NOW_S = 1_764_000_030
NOW = datetime.fromtimestamp(NOW_S + 5, UTC)
DAY = 20_400
QUANTITIES = {
    "1-0:1.8.0": "import_kwh",
    "1-0:1.8.1": "import_kwh_t1",
    "1-0:1.8.2": "import_kwh_t2",
    "1-0:1.8.3": "import_kwh_t3",
    "1-0:1.8.4": "import_kwh_t4",
    "1-0:2.8.0": "export_kwh",
    "1-0:1.7.0": "import_kw",
    "1-0:16.7.0": "power_kw",
    "1-0:32.7.0": "voltage_v_a",
    "1-0:31.7.0": "current_a_a",
}
MAPPINGS = {"neuron-tags": "neuron", "cet": "cet-zhongdian"}
ZONES = {"tasmota": timezone(timedelta(hours=1))}  # Berlin in November, as its mapping has it
_LATER = (
    "oversized",
    "foreign topic",
    "wrong identity",
    "unknown meter",
    "value beyond int64",
)  # not the decoder's to see

Values = dict[tuple[str, str, int], Decimal]


@pytest.fixture(scope="module")
def mappings() -> dict[str, Dialect]:
    return load_mappings([SHIPPED_MAPPINGS])


def told(batches: Iterable[Batch]) -> Values:
    """Every value in them, in the quantity's unit."""
    found: Values = {}
    for batch in batches:
        for rows in batch.meters:
            for at_s, numbers in zip(rows.times, rows.values, strict=True):
                for column, number in zip(batch.columns, numbers, strict=True):
                    if column.quantity and number is not None:
                        units = Decimal(number) * column.units_factor / column.units_divisor
                        found[rows.address, column.quantity, at_s] = units.scaleb(-4)
    return found


def expected(values: Iterable[Truth]) -> Values:
    return {(truth.address, QUANTITIES[truth.obis], truth.at_s): truth.value for truth in values}


def decoded(dialect: Dialect, said: Iterable[Out]) -> list[Batch]:
    for out in said:
        assert any(matches(pattern, out.topic) for pattern in dialect.filters), out.topic
    return [dialect.decode(out.topic, out.payload, NOW) for out in said]


@pytest.mark.parametrize("name", FIRMWARES)
def test_the_shipped_mapping_understands_every_value_of_its_firmware(mappings: dict[str, Dialect], name: str) -> None:
    meters = fleet(3, installed_day=DAY)
    said = messages(name, "gw1", meters, NOW_S, ZONES.get(name, timezone(timedelta(hours=8))))
    batches = decoded(mappings[MAPPINGS.get(name, name)], said)
    assert told(batches) == expected(truths(name, meters, NOW_S))


def test_acrel_for_abroad_is_answered_so_that_it_forgets(mappings: dict[str, Dialect]) -> None:
    said: list[Out] = []
    gateway = AcrelOverseas("12209263660002", "ADW300", fleet(2, installed_day=DAY), SettableClock(NOW_S))
    gateway.emit = said.append
    batches = _talk(gateway, mappings["acrel-overseas"], said)
    assert told(batches) == expected(gateway.truths())
    assert gateway.kept == {}
    assert gateway.done["heard time"] == 1


@pytest.mark.parametrize("compress", [False, True])
def test_acrel_domestic_is_answered_so_that_it_forgets(mappings: dict[str, Dialect], compress: bool) -> None:
    said: list[Out] = []
    gateway = AcrelDomestic("1234567890123", "pk", fleet(2, installed_day=DAY), SettableClock(NOW_S))
    gateway.emit = said.append
    gateway.compress = compress
    batches = _talk(gateway, mappings["acrel-domestic"], said)
    assert told(batches) == expected(gateway.truths())
    assert gateway.kept == {}


def _talk(gateway: AcrelOverseas | AcrelDomestic, dialect: Dialect, said: list[Out]) -> list[Batch]:
    """Let it read before and after it connects, and give it every answer."""
    batches: list[Batch] = []
    gateway.read()
    gateway.connected()
    for read_more in (True, False):
        while said:
            out = said.pop(0)
            (batch,) = decoded(dialect, [out])
            batches.append(batch)
            topic, payload = batch.reply
            if payload:
                gateway.hear(topic, payload)
        if read_more:
            gateway.read()
    return batches


def test_the_canonical_messages_are_understood_value_for_value() -> None:
    said: list[Out] = []
    spec = ConcentratorSpec("C0001", columns=ENERGY)
    con = Concentrator(spec, fleet(3, installed_day=DAY), SettableClock(NOW_S), emit=said.append)
    con.connected()
    con.whole_day(NOW_S // 86_400 * 86_400 - 86_400)
    con.interval()
    batches = decoded(CANONICAL, said)
    assert told(batches) == expected(con.truths())
    assert [(batch.boot, batch.seq) for batch in batches[1:]] == [(1, 1), (1, 2)]
    assert batches[0].state is not None


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in _LATER])
def test_a_bad_canonical_message_is_refused_or_taken_in_part_with_a_reason(kind: str) -> None:
    con = Concentrator(ConcentratorSpec("C0001"), fleet(2, installed_day=DAY), SettableClock(NOW_S))
    out = bad(kind, con, size=100_000)
    reasons: list[str] = []
    try:
        batch = CANONICAL.decode(out.topic, out.payload, NOW)
        reasons += [part.reason for part in batch.rejected]
    except BadFrame as error:
        reasons.append(error.problem.what)
    assert reasons
    assert all(reasons)
