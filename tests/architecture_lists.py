"""Today's exceptions of the architecture: ``python tests/architecture_lists.py``.

Prints what tests/architecture.json must hold: ``> tests/architecture.json`` after a
change that moves or mends files. The diff shows what grew.
"""

import ast
import functools
import json
from pathlib import Path

from structure_of_package import (
    circles,
    edges,
    naming,
    repeated_classes,
    sources,
    too_long,
    upward,
)

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "jaxglmm"
FACES = {
    *("Fit", "GeneralisedFit", "OrdinalFit", "ComponentsFit", "Fits"),
    *("PosteriorFit", "Posteriors"),
}
FACE_FILES = {  # of the results: what a user holds
    "results/fit.py",
    "results/questions.py",
    "results/streamed_fit.py",
    "results/correlated_fit.py",
    "results/generalised_fit.py",
    "results/multinomial_fit.py",
    "results/ordinal_fit.py",
    "results/components_fit.py",
    "results/posterior_fit.py",
    "results/categories_posterior.py",
    "results/fits.py",
    "results/posteriors.py",
}
QUESTIONS = (  # rooms that work for the faces, and the faces' own
    "fitting/",
    "posterior/",
    "many/",
    "postestimation/",
    "export/",
    "results/",
)
LONGEST = {"file": 500, "class": 350, "function": 100}


def rows():
    """The table of rows of test_architecture.py, read without importing it."""
    tree = ast.parse((HERE / "test_architecture.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROWS":
            table = ast.literal_eval(node.value)
            return {name: i for i, row in enumerate(table) for name in row}
    raise AssertionError("test_architecture.py has no ROWS")


@functools.cache
def lists(package=PACKAGE):
    """Every list of exceptions."""
    files = sources(package)
    own = {name: text for name, text in files.items() if name != "__init__.py"}
    found = list(edges(own))
    return {
        "circles": [list(c) for c in circles((a, b) for a, b, _ in found)],
        "upward": upward(found, rows()),
        "faces": naming(own, FACES, QUESTIONS, FACE_FILES),
        "classes": repeated_classes(own),
        "long": too_long(files, LONGEST),
    }


def counts(found):
    """How many there are of each."""
    return {
        "circles": len(found["circles"]),
        "circle files": sum(map(len, found["circles"])),
        "upward": len(found["upward"]),
        "faces": len(found["faces"]),
        "classes": len(found["classes"]),
        **{f"long {kind}": len(names) for kind, names in found["long"].items()},
        **{
            f"longest {kind}": max(names.values(), default=0)
            for kind, names in found["long"].items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(lists(), indent=1))
