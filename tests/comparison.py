"""Comparing a fit with the values of R: numbers by name, terms by factor."""

from __future__ import annotations

import numpy as np
import pytest
from cases import r_name


def close(actual, expected, rtol, atol=0.0, what=""):
    """|actual - expected| <= atol + rtol |expected|; atol may be an array."""
    a, e = np.asarray(actual, float), np.asarray(expected, float)
    assert a.shape == e.shape, f"{what}: shape {a.shape}, not {e.shape}"
    excess = np.abs(a - e) - (atol + rtol * np.abs(e))
    if not (excess <= 0).all():
        k = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), a.shape)
        pytest.fail(f"{what}{list(map(int, k))}: {a[k]:.10g}, reference {e[k]:.10g}")


def fixed(f, values):
    """Our coefficients' numbers (p,) by R's names."""
    return {
        r_name(name): float(v)
        for name, v in zip(f.fixef, np.asarray(values), strict=True)
    }


def close_by_name(ours, theirs, rtol, atol=0.0):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        a = atol[name] if isinstance(atol, dict) else atol
        close(ours[name], value, rtol, a, name)


def by_term(f, ref):
    """(our label, record, R's record) for every term.

    R sorts its terms by number of levels and calls a factor's second term ``g.1``.
    """
    used = []
    for label, ours in f.varcorr.items():
        names = [r_name(n) for n in ours.sd.index]
        theirs = next(
            t
            for t, record in ref["varcorr"].items()
            if t not in used
            and sorted(t.split(".")[0].split(":")) == sorted(ours.factor.split(":"))
            and record["names"] == names
        )
        used.append(theirs)
        yield label, ours, theirs
    assert len(used) == len(ref["varcorr"])


def theta_by_name(f, ref):
    """Our theta by lme4's names: column by column within a term."""
    position, ours = 0, {}
    for _, record, theirs in by_term(f, ref):
        names = [r_name(n) for n in record.sd.index]
        factor = theirs.split(".")[0]
        for j, first in enumerate(names):
            for later in names[j:]:
                if record.structure == "diag" and later != first:
                    continue
                label = first if later == first else f"{later}.{first}"
                ours[f"{factor}.{label}"] = f.theta[position]
                position += 1
    assert position == len(f.theta)
    return ours
