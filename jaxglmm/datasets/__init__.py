"""Small data sets that every mixed-model text uses, shipped with the package.

>>> import jaxglmm as jg
>>> jg.datasets.load("Penicillin").dtypes.astype(str).to_dict()
{'diameter': 'int64', 'plate': 'category', 'sample': 'category'}

``SOURCES`` says for each where it comes from, under which licence, whom to cite, and
the checksum of the file. ``python -m jaxglmm.datasets`` prints it.
"""

from jaxglmm.datasets.read import load, names
from jaxglmm.datasets.sources import SOURCES, Source

__all__ = ["SOURCES", "Source", "load", "names"]
