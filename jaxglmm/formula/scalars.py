"""Labels that JSON has no word for: dates, intervals, periods, decimals, bytes.

Each kind is written as a short list of numbers and texts and read back as itself. A
file names a kind in this table and nothing else, so that reading one runs no code of
its own.
"""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from jaxglmm._pandas import pd


def _of_timestamp(value: pd.Timestamp) -> list:
    time = value.asm8  # in UTC where there is a zone
    zone = None if value.tz is None else str(value.tz)
    return [*_of_time(time), zone]


def _timestamp(number: int, dtype: str, zone: str | None) -> Any:
    time = pd.Timestamp(_time(number, dtype))
    return time if zone is None else time.tz_localize("UTC").tz_convert(zone)


def _of_time(value: np.datetime64 | np.timedelta64) -> list:
    return [int(value.astype(np.int64)), str(value.dtype)]


def _time(number: int, dtype: str) -> Any:
    return np.int64(number).astype(dtype)


def _of_span(value: dt.timedelta) -> list:
    return [value.days, value.seconds, value.microseconds]


Kind = tuple[str, type, Callable[[Any], list], Callable[..., Any]]


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """Name, type, to a list, from that list; subclasses come before their classes."""
    return (
        ("timestamp", pd.Timestamp, _of_timestamp, _timestamp),
        (
            "timedelta",
            pd.Timedelta,
            lambda v: _of_time(v.asm8),
            lambda n, dtype: pd.Timedelta(_time(n, dtype)),
        ),
        (
            "period",
            pd.Period,
            lambda v: [v.ordinal, v.freqstr],
            lambda n, freq: pd.Period(ordinal=n, freq=freq),
        ),
        ("interval", pd.Interval, lambda v: [v.left, v.right, v.closed], pd.Interval),
        ("datetime64", np.datetime64, _of_time, _time),
        ("timedelta64", np.timedelta64, _of_time, _time),
        ("datetime", dt.datetime, lambda v: [v.isoformat()], dt.datetime.fromisoformat),
        ("date", dt.date, lambda v: [v.isoformat()], dt.date.fromisoformat),
        ("time", dt.time, lambda v: [v.isoformat()], dt.time.fromisoformat),
        ("span", dt.timedelta, _of_span, dt.timedelta),
        ("decimal", Decimal, lambda v: [str(v)], Decimal),
        ("fraction", Fraction, lambda v: [v.numerator, v.denominator], Fraction),
        ("bytes", bytes, lambda v: [v.hex()], bytes.fromhex),
        ("complex", complex, lambda v: [v.real, v.imag], complex),
        ("uuid", uuid.UUID, lambda v: [v.hex], uuid.UUID),
        ("set", frozenset, lambda v: sorted(v, key=repr), lambda *v: frozenset(v)),
    )


@functools.cache
def _readers() -> dict[str, Callable[..., Any]]:
    return {name: read for name, _, _, read in kinds()}


def parts(value: Any) -> tuple[str, list] | None:
    """The name of the kind and what it is made of; None for other values."""
    if value is pd.NaT or value is pd.NA:
        return ("NaT" if value is pd.NaT else "NA"), []
    for name, kind, write, _ in kinds():
        if isinstance(value, kind):
            return name, write(value)
    return None


def whole(name: str, given: list) -> Any:
    """The value of ``parts``."""
    if name in ("NaT", "NA"):
        return pd.NaT if name == "NaT" else pd.NA
    return _readers()[name](*given)
