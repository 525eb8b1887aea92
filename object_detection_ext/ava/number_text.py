# SPDX-License-Identifier: Apache-2.0
"""Numbers in the fields of CSVs, as programs of many countries write them."""

import decimal
import math
import re

# Ids are stored in 64 bits.
_TOO_LARGE = 2**63
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
# One and a fraction, or more than a thousand: nobody knows.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")


def digits(value: float) -> str:
    """A number: short if that is exact, else with all its digits."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def has_decimal_comma(text: str) -> bool:
    """Whether a text is a number with a comma that can only be a decimal one."""
    return bool(_DECIMAL_COMMA.fullmatch(text)) and not _THOUSANDS.fullmatch(text)


def has_doubtful_comma(text: str) -> bool:
    """Whether a text is a number only if one knows what commas are: 1,234."""
    return _THOUSANDS.fullmatch(text) is not None


def is_grouped(text: str) -> bool:
    """Whether a text is more than a thousand where commas are decimal ones: 1.234."""
    return _POINT_THOUSANDS.fullmatch(text) is not None


def number(text: str) -> float:
    """A number, also with a decimal comma; raises ValueError where it is not finite or none."""
    if has_decimal_comma(text):
        text = text.replace(",", ".")
    value = math.nan if "_" in text else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def whole(text: str) -> int:
    """A whole number of 64 bits, also where a tool wrote it as `12.0`; or raises ValueError."""
    try:
        value = int("" if "_" in text else text)
    except ValueError:
        value = int(number(text))
        # Not every fraction, or number above 2**53, has a float of its own.
        if decimal.Decimal(text.replace(",", ".")) != value:
            raise
    if abs(value) >= _TOO_LARGE:
        raise ValueError(text)
    return value


def is_fraction(text: str) -> bool:
    """Whether a text is a number that is not whole."""
    try:
        value = number(text)
    except ValueError:
        return False
    return value != int(value)
