"""Chinese capital numerals: the examples of the rule, and every amount read back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.documents.capitals import capitals

# 正确填写票据和结算凭证的基本规定, annex 1 of 银发〔1997〕393号, sections 2 and 4; of two allowed forms the first.
PUBLISHED = {
    "1409.50": "人民币壹仟肆佰零玖元伍角",
    "6007.14": "人民币陆仟零柒元壹角肆分",
    "1680.32": "人民币壹仟陆佰捌拾元零叁角贰分",
    "107000.53": "人民币壹拾万柒仟元零伍角叁分",
    "16409.02": "人民币壹万陆仟肆佰零玖元零贰分",
    "325.04": "人民币叁佰贰拾伍元零肆分",
}

ZEROS = {
    "0": "人民币零元整",
    "0.05": "人民币伍分",
    "0.50": "人民币伍角",
    "10": "人民币壹拾元整",
    "10.01": "人民币壹拾元零壹分",
    "1001.00": "人民币壹仟零壹元整",
    "1010": "人民币壹仟零壹拾元整",
    "100000007": "人民币壹亿零柒元整",
    "100100000": "人民币壹亿零壹拾万元整",
    "20000000000": "人民币贰佰亿元整",
    "-12.30": "人民币负壹拾贰元叁角",
}


@pytest.mark.parametrize(("amount", "words"), [*PUBLISHED.items(), *ZEROS.items()])
def test_amounts_as_the_rule_writes_them(amount: str, words: str) -> None:
    assert capitals(Decimal(amount)) == words


def value(words: str) -> int:
    """Hundredths that capital numerals mean, read from left to right by the place words alone."""
    total = group = digit = 0
    for character in words:
        if character in "零壹贰叁肆伍陆柒捌玖":
            digit = "零壹贰叁肆伍陆柒捌玖".index(character)
        elif character in "拾佰仟":
            group, digit = group + digit * 10 ** (1 + "拾佰仟".index(character)), 0
        elif character == "万":
            total, group, digit = total + (group + digit) * 10**4, 0, 0
        elif character == "亿":
            total, group, digit = (total + group + digit) * 10**8, 0, 0
        elif character == "元":
            total, group, digit = (total + group + digit) * 100, 0, 0
        elif character == "角":
            group, digit = group + digit * 10, 0
        elif character == "分":
            group, digit = group + digit, 0
    return total + group


@settings(max_examples=300)
@given(st.integers(0, 10**17) | st.integers(0, 10**6) | st.sampled_from([10**n for n in range(18)]))
def test_words_mean_the_amount_and_never_two_zeros(cents: int) -> None:
    words = capitals(Decimal(cents).scaleb(-2))
    assert value(words.removeprefix("人民币")) == cents
    assert "零零" not in words
    assert words.endswith("整") == (cents % 100 == 0)
    assert not any(f"零{unit}" in words for unit in "万亿拾佰仟角分")


@given(st.integers(1, 10**12))
def test_a_credit_says_so(cents: int) -> None:
    amount = Decimal(cents).scaleb(-2)
    assert capitals(-amount) == capitals(amount).replace("人民币", "人民币负")


def test_what_has_no_words() -> None:
    assert capitals(Decimal(12), "EUR") == ""
    for amount in ("0.001", "1e17"):
        with pytest.raises(ValueError, match="no capital numerals"):
            capitals(Decimal(amount))
