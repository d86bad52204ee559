"""What the formula did to the response, ``log(y)`` say, and the way back.

A linear model of ``log(y)`` has means of logarithms. As emmeans does, they are shown
back by the inverse function, with errors by the delta method: exp of a mean of
logarithms is a geometric mean (a median, of normal residuals), not a mean of y.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError, NotApplicableError
from jaxglmm.formula.expressions import Expression, read_expression
from jaxglmm.formula.terms import read_atom

LOG2, LOG10 = np.log(2.0), np.log(10.0)
# inverse, its derivative, and what the inverse of a difference is
KNOWN: dict[str, tuple[Callable, Callable, str | None]] = {
    "log": (np.exp, np.exp, "ratio"),
    "log2": (np.exp2, lambda eta: LOG2 * np.exp2(eta), "ratio"),
    "log10": (
        lambda eta: np.exp(LOG10 * eta),
        lambda eta: LOG10 * np.exp(LOG10 * eta),
        "ratio",
    ),
    "log1p": (np.expm1, np.exp, None),
    "sqrt": (np.square, lambda eta: 2 * eta, None),
}


@dataclass(frozen=True)
class Transformed:
    """A function of the response.

    name: as it is shown; function: its name among ``KNOWN``, None of one whose inverse
    is not known; shift: what was added to the response before.
    """

    name: str
    function: str | None
    shift: float = 0.0

    @property
    def ratio(self) -> str | None:
        """What the inverse of a difference is, None of functions that are no logs."""
        return None if self.function is None else KNOWN[self.function][2]

    def inverse(self, eta: Any) -> np.ndarray:
        """The response, elementwise."""
        return self.inverse_of_difference(eta) - self.shift

    def inverse_of_difference(self, eta: Any) -> np.ndarray:
        """A ratio of responses (to which the shift was added), elementwise."""
        return KNOWN[self._function()][0](np.asarray(eta, float))

    def slope(self, eta: Any) -> np.ndarray:
        """d response / d eta, elementwise."""
        return KNOWN[self._function()][1](np.asarray(eta, float))

    def check(self) -> None:
        """Refuse to go back where there is no way.

        Raises:
            NotApplicableError: for a function whose inverse is not known.
        """
        self._function()

    def _function(self) -> str:
        if self.function is None:
            known = ", ".join(f"{name}(y)" for name in KNOWN)
            raise NotApplicableError(
                f"the response is {self.name}, whose inverse is not known here (those "
                f"of {known} and log(y + 1) are): ask for type='link', and "
                "transform means and limits yourself"
            )
        return self.function


def transformation(response: str) -> Transformed | None:
    """What a left side does to the response; None where it is a column itself.

    >>> transformation("log(y + 1)")
    Transformed(name='log(y + 1)', function='log', shift=1.0)
    >>> transformation("y") is None
    True
    """
    try:
        if read_atom(response).bare:
            return None
        read = read_expression(response)
    except FormulaError:  # no formula's: a label of an array
        return None
    tree = read.tree
    function, argument = _call(read, tree)
    if function == "I" and argument is not None:
        function, argument = _call(read, argument)
        if function is None and isinstance(argument, ast.Name):
            return None
    if function not in KNOWN or argument is None:
        return Transformed(read.text, None)
    shift = _added(argument)
    if shift is None:
        return Transformed(read.text, None)
    return Transformed(read.text if shift else function, function, shift)


def _call(read: Expression, node: ast.expr) -> tuple[str | None, ast.expr | None]:
    """Function and argument of ``f(x)``; no function where it is none of one."""
    if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords:
        return None, node
    name = read.spelled(node.func).removeprefix("np.")
    return name, node.args[0]


def _added(node: ast.expr) -> float | None:
    """The number of ``y + 1``, ``1 + y`` and ``y - 1``, zero of ``y``, else None."""
    if isinstance(node, ast.Name):
        return 0.0
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub):
        return None
    y, number = node.left, node.right
    if isinstance(y, ast.Constant) and isinstance(node.op, ast.Add):
        y, number = number, y
    if not isinstance(y, ast.Name) or not isinstance(number, ast.Constant):
        return None
    if not isinstance(number.value, int | float):
        return None
    return float(number.value if isinstance(node.op, ast.Add) else -number.value)
