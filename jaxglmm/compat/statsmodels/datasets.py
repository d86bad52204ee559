"""``get_rdataset`` for the data sets that come with jaxglmm; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from jaxglmm import datasets as shipped
from jaxglmm.compat.statsmodels._theirs import falling_through


@dataclass(frozen=True)
class Dataset:
    """A data set: ``data``, a frame, and ``title``."""

    data: pd.DataFrame
    title: str
    package: str
    from_cache: bool = True


def get_rdataset(
    dataname: str, package: str = "datasets", cache: bool = False
) -> Dataset:
    """A data set of an R package by its name there.

    Args:
        dataname: such as "dietox".
        package: taken for statsmodels' sake; names are unique here.
        cache: likewise: everything is local.

    Raises:
        DataError: a name that does not come with jaxglmm, with those that do.

    >>> get_rdataset("dietox", "geepack").data.shape
    (861, 8)
    """
    return Dataset(shipped.load(dataname), dataname, package)


__getattr__ = falling_through(__name__, "statsmodels.datasets")
