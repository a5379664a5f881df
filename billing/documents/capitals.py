"""Amounts in Chinese capital numerals, as cheques and invoices carry them: 人民币壹仟肆佰零玖元伍角.

By the rules for filling in bills and settlement documents (正确填写票据和结算凭证的基本规定, annex 1 of the payment and
settlement measures, 银发〔1997〕393号). Where these leave a choice, the zero stands between a yuan digit of 0 and the
jiao, none after a ten-thousands digit of 0, and 整 stands after yuan only.
"""

from __future__ import annotations

from decimal import Decimal

__all__ = ["capitals"]

_DIGITS = "零壹贰叁肆伍陆柒捌玖"
_PLACES = ("", "拾", "佰", "仟")
_CURRENCIES = {"CNY": "人民币"}
_MOST = 10**16


def capitals(amount: Decimal, currency: str = "CNY") -> str:
    """`amount` in words; "" for a currency without such words. A credit begins with 负.

    Raises `ValueError` for an amount finer than a hundredth, or of ten thousand million millions and more.
    """
    if currency not in _CURRENCIES:
        return ""
    cents = int(amount.scaleb(2))
    if cents != amount.scaleb(2) or abs(cents) >= 100 * _MOST:
        raise ValueError(f"{amount} has no capital numerals")
    sign = "负" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    return _CURRENCIES[currency] + sign + _money(whole, *divmod(rest, 10))


def _money(whole: int, tenths: int, hundredths: int) -> str:
    if not tenths and not hundredths:
        return f"{_number(whole) if whole else _DIGITS[0]}元整"
    text = f"{_number(whole)}元" if whole else ""
    if tenths:
        gap = _DIGITS[0] if whole and whole % 10 == 0 else ""
        text += f"{gap}{_DIGITS[tenths]}角"
    elif whole:
        text += _DIGITS[0]
    return text + (f"{_DIGITS[hundredths]}分" if hundredths else "")


def _number(value: int) -> str:
    """A whole number above zero, read in groups of four digits."""
    for size, unit in ((10**8, "亿"), (10**4, "万")):
        if value >= size:
            high, low = divmod(value, size)
            gap = _DIGITS[0] if 0 < low < size // 10 else ""
            return _number(high) + unit + gap + (_number(low) if low else "")
    text, zero = "", False
    for place in range(3, -1, -1):
        digit = value // 10**place % 10
        if digit:
            text += (_DIGITS[0] if zero and text else "") + _DIGITS[digit] + _PLACES[place]
        zero = not digit
    return text
