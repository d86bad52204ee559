"""Print where the data sets come from: ``python -m jaxglmm.datasets``."""

from jaxglmm.datasets import SOURCES

if __name__ == "__main__":
    for source in SOURCES:
        print(source, end="\n\n")
