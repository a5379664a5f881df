"""The verbs on bills that are not right: what they print, what they leave in the store, how they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from billing import ledger
from billing.run import close_period
from headend.cli import cli
from headend.errors import HeadendError
from headend.model import Meter, MeterModel
from headend.store import Store, open_store, registry
from tests.billing_support import NOW, WRAP, shipped
from tests.corrections_kit import FLAT, bill, close, customer, edit, owed

Run = Callable[..., Result]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Store]:
    """A1 with 100 kWh in June and in July, billed for June; A2 without reads."""
    text = '[site]\nname = "Town"\nzone = "Asia/Shanghai"\nstore = "sqlite:///headend.db"\n'
    (tmp_path / "site.toml").write_text(text, encoding="utf-8")
    store = open_store(f"sqlite:///{tmp_path / 'headend.db'}")
    customer(store, "0", "100", "200")
    customer(store, account="A2")
    close(store, FLAT, 6)
    yield store
    store.close()


@pytest.fixture
def run(town: Store, tmp_path: Path) -> Run:
    def call(*args: str) -> Result:
        return CliRunner().invoke(cli, [*args, "-s", str(tmp_path / "site.toml")])

    return call


def told(result: Result) -> str:
    """What a verb printed, or its one message of error."""
    if isinstance(result.exception, HeadendError):
        return f"error: {result.exception}"
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_correct(town: Store, run: Run) -> None:
    assert told(run("bill", "correct", "A1-2026-06", "--reason", "check")) == (
        "bill A1-2026-06: nothing to correct, the store gives the same lines\n"
    )
    edit(town, customer_meter(town), 7, "90")
    shown = told(run("bill", "correct", "A1-2026-06", "--reason", "wrong register"))
    assert shown == (
        "bill A1-2026-06: 64.25 CNY, reversed by R000001\n"
        "bill A1-2026-06.1: 57.83 CNY, issued in its place\n"
        "  difference -6.42 CNY\n"
    )
    assert owed(town) == bill(town, "A1-2026-06.1").total
    edit(town, customer_meter(town), 7, "110")
    found = json.loads(told(run("bill", "correct", "A1-2026-06.1", "--reason", "x", "--json")))
    assert found["later"] == []
    assert [(item["new"], item["difference"]) for item in found["corrected"]] == [("A1-2026-06.2", "12.85")]
    assert told(run("bill", "correct", "A2-2026-06", "--reason", "x")).startswith(
        "error: bill A2-2026-06 is held: it was not issued"
    )
    assert "reversed by R000001" in told(run("bill", "correct", "A1-2026-06", "--reason", "x"))
    assert "a correction needs a reason" in told(run("bill", "correct", "A1-2026-06.2", "--reason", " "))


def customer_meter(town: Store) -> Meter:
    """The meter of A1."""
    with town.read() as conn:
        row = registry.meter(conn, "M-A1")
    assert row is not None
    model = MeterModel("test", "dlt645", WRAP, Decimal(10))
    return Meter(row.key, row.id, row.address, "dlt645", "L1", model, row.clock_zone)


def test_recompute(town: Store, run: Run) -> None:
    assert told(run("bill", "recompute", "A1-2026-06")) == "bill A1-2026-06: identical, 64.25 CNY\n"
    outcome = edit(town, customer_meter(town), 7, "90")
    assert json.loads(told(run("bill", "recompute", "A1-2026-06", "--json")))["identical"] is True
    for words in (("--now",), ("--as-of", str(outcome)), ("--as-of", "2027-06-01")):
        result = run("bill", "recompute", "A1-2026-06", "--json", *words)
        found = json.loads(result.output)
        assert result.exit_code == 1
        assert (found["identical"], found["then"], found["now"], found["as_of"]) == (False, "64.25", "57.83", outcome)
        assert {"item": "total", "where": "", "then": "64.25 CNY", "now": "57.83 CNY"} in found["differences"]
    plain = run("bill", "recompute", "A1-2026-06", "--now")
    assert plain.exit_code == 1
    assert "register" in plain.output
    assert "bill A1-2026-06: 4 differences" in plain.output
    assert told(run("bill", "recompute", "A1-2026-06", "--as-of", "2020-01-01", "--now")).startswith(
        "error: --now and --as-of exclude each other"
    )
    assert "is no time" in told(run("bill", "recompute", "A1-2026-06", "--as-of", "yesterday"))
    assert "unknown bill 'A1'" in told(run("bill", "recompute", "A1"))


def test_adjust_and_list(town: Store, run: Run) -> None:
    kwh = ("bill", "adjust", "A1-2026-06", "--kwh", "-10", "--reason", "meter [fast]")
    first = "ADJ000001: -10 kWh x 0.6425 = -6.43 CNY, for the next bill of account A1\n"
    assert told(run(*kwh)) == f"recorded as {first}"
    assert told(run(*kwh)) == f"recorded before as {first}"
    assert told(run("bill", "adjust", "A1-2026-06", "--amount", "2.50", "--reason", "goodwill")) == (
        "recorded as ADJ000002: 2.50 CNY, for the next bill of account A1\n"
    )
    close(town, FLAT, 7)
    assert bill(town, "A1-2026-07").total == bill(town, "A1-2026-06").total - Decimal("3.93")  # type: ignore[operator]
    assert "adjustment for bill A1-2026-06: goodwill" in told(run("bill", "show", "A1-2026-07"))
    assert "adjustment for bill A1-2026-06: goodwill" in told(run("explain", "A1-2026-07"))
    listed = json.loads(told(run("bill", "adjustments", "A1", "--json")))
    assert [(item["number"], item["amount"], item["taken_by"]) for item in listed] == [
        ("ADJ000001", "-6.43", "A1-2026-07"),
        ("ADJ000002", "2.50", "A1-2026-07"),
    ]
    shown = told(run("bill", "adjustments"))
    assert all(word in shown for word in ("ADJ000002", "A1-2026-06", "meter [fast]", "A1-2026-07"))
    assert told(run("bill", "adjustments", "A2")) == "no adjustments\n"
    assert "unknown account 'A9'" in told(run("bill", "adjustments", "A9"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reason", "x"), "an adjustment is an amount, or energy at a price -> give --amount, or --kwh [--price]"),
        (("--kwh", "1", "--amount", "1", "--reason", "x"), "an adjustment is an amount, or energy at a price"),
        (("--amount", "1", "--price", "1", "--reason", "x"), "an adjustment is an amount, or energy at a price"),
        (("--amount", "1e3", "--reason", "x"), "'1e3' is not an amount -> write it like 120.50"),
        (("--amount", "1", "--reason", " "), "an adjustment needs a reason -> say it with --reason"),
    ],
)
def test_adjustments_that_are_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    assert message in told(run("bill", "adjust", "A1-2026-06", *words))


def test_back_billing_shows_the_calculation_and_makes_the_adjustment(town: Store, run: Run) -> None:
    words = ("bill", "backbill", "error", "A1-2026-06", "--percent", "-5", "--kwh", "19000", "--price", "0.538")
    shown = told(run(*words))
    assert all(word in shown for word in ("art. 80 (1)", "9500", "10000", "269.00", "nothing was recorded"))
    assert json.loads(told(run("bill", "adjustments", "--json"))) == []
    shown = told(run(*words, "--make", "--reason", "checked"))
    assert "adjustment ADJ000001, for the next bill of account A1" in shown
    (made,) = json.loads(told(run("bill", "adjustments", "--json")))
    assert (made["amount"], made["quantity"], made["text"]) == (
        "269.00",
        "500",
        "adjustment for bill A1-2026-06: meter error: checked",
    )
    assert made["basis"]["steps"][1] == {
        "what": "of half the time since the last check", "value": "9500", "unit": "kWh"
    }  # fmt: skip
    assert (made["basis"]["price"], made["basis"]["price_source"]) == ("0.538", "as given")
    close(town, FLAT, 7)
    walked = told(run("explain", "A1-2026-07"))
    assert all(words in walked for words in ("adjustment ADJ000001 for bill A1-2026-06", "error: -5 %", "price: 0.538"))


@pytest.mark.parametrize(
    ("words", "kwh", "amount"),
    [
        (("error", "--percent", "-5", "--whole"), "5.2632", "3.38"),  # 100 / 0.95 - 100, at 0.6425
        (("multiplier", "--billed-with", "30", "--true", "40"), "33.3333", "21.42"),
        (("wiring", "--case", "ct_reversed"), "200", "128.50"),
        (("wiring", "--errors", "-40,0,10"), "11.1111", "7.14"),
        (("wiring", "--k", "12/11"), "9.0909", "5.84"),
        (("normal", "--fault-days", "3", "--recorded", "4", "--normal-bill", "A1-2026-06"), "6", "3.86"),
        (
            ("normal", "--fault-days", "3", "--recorded", "400", "--normal-kwh", "9000", "--normal-days", "30"),
            "500",
            "321.25",
        ),
    ],
)
def test_back_billing_from_the_bill_itself(run: Run, words: tuple[str, ...], kwh: str, amount: str) -> None:
    """June had 100 kWh at 0.6425, and 30 days."""
    (found,) = json.loads(told(run("bill", "backbill", words[0], "A1-2026-06", *words[1:], "--json")))
    assert (found["kwh"], found["amount"], found["currency"]) == (kwh, amount, "CNY")
    assert found["price_source"] == "average price of energy on A1-2026-06"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("error", "A1-2026-06", "--percent", "x"), "'x' is not an error in percent"),
        (("error", "A2-2026-06", "--percent", "5"), "bill A2-2026-06 is held: it was not issued"),
        (("error", "A1-2026-06", "X", "--percent", "5", "--kwh", "9"), "one energy can't be that of several bills"),
        (("error", "A1-2026-06", "--percent", "5", "--make"), "an adjustment needs a reason"),
        (("wiring", "A1-2026-06"), "K can't be told -> give one of --case, --errors and --k"),
        (("wiring", "A1-2026-06", "--k", "1/0"), "'1/0' is no K"),
        (("normal", "A1-2026-06", "--fault-days", "3", "--recorded", "1"), "no normal month"),
        (
            ("normal", "A1-2026-06", "--fault-days", "3", "--recorded", "1", "--normal-bill", "X"),
            "'X' is no issued bill",
        ),
    ],
)
def test_back_billing_that_is_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    assert message in told(run("bill", "backbill", *words))


def test_a_reversal_says_what_rests_on_the_bill(town: Store, run: Run) -> None:
    shown = told(run("account", "reverse", "A1-2026-06", "--reason", "x"))
    assert shown == "recorded as R000001; account A1 owes 0.00 CNY\n"  # a flat price rests on nothing
    assert "1 issued" in told(run("bill", "close", "2026-06"))
    assert bill(town, "A1-2026-06.1").replaces == "A1-2026-06"


def test_bills_of_the_step_year_rest_on_those_before(town: Store, run: Run) -> None:
    beijing = shipped("cn-beijing-residential-step")
    meter = customer(town, "0", "1000", "2000", "3000", account="A3", tariff=beijing, used="2000")
    for number in (6, 7, 8):
        close_period(town, [beijing], 2026, number, ["A3"], now=NOW)
    shown = told(run("account", "reverse", "A3-2026-06", "--reason", "x"))
    assert "made from what A3-2026-06 said: A3-2026-07, A3-2026-08" in shown
    assert "1 issued" in told(run("bill", "close", "2026-06", "--account", "A3"))
    edit(town, meter, 7, "900")
    shown = told(run("bill", "correct", "A3-2026-06.1", "--reason", "x"))
    assert "issued later, and made from what A3-2026-06.1 said: A3-2026-07, A3-2026-08" in shown
    found = json.loads(told(run("bill", "correct", "A3-2026-07", "--reason", "x", "--all", "--json")))
    # July has what June lost; August stands above the same energy as before, so no line of it changes.
    assert [item["new"] for item in found["corrected"]] == ["A3-2026-07.1"]
    with town.read() as conn:
        assert dict(ledger.statement(conn, "A3").balances)["CNY"] == sum(
            bill(town, number).total or 0 for number in ("A3-2026-06.2", "A3-2026-07.1", "A3-2026-08")
        )
