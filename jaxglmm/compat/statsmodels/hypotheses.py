"""Linear hypotheses in words, ``"x = 2, C(f)[T.b] - C(f)[T.c] = 0"``."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Sequence

import numpy as np

from jaxglmm.formula.parse import split


def constraints(
    texts: Sequence[str], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """R (r, k) and q (r,) with R params = q.

    Args:
        texts: sums of multiples of parameters, compared by "=" (to 0 where nothing is);
            several in one text are separated by commas.
        names: of the parameters, whatever signs are in them.

    Raises:
        ValueError: what cannot be read, with the names there are.
    """
    rows, right = [], []
    for text in texts:
        for piece in _pieces(_aliased(str(text), names)):
            try:
                sides = [_linear(side, len(names)) for side in piece.split("=")]
            except (SyntaxError, ValueError, IndexError) as error:
                raise ValueError(
                    f"cannot read the hypothesis {text!r}: {_why(error)}. Names: "
                    f"{', '.join(map(str, names))}"
                ) from None
            if len(sides) == 1:
                sides.append(np.zeros(len(names) + 1))
            for left, other in itertools.pairwise(sides):
                rows.append((left - other)[:-1])
                right.append((other - left)[-1])
    if not rows:
        raise ValueError("the hypothesis is empty")
    return np.array(rows), np.array(right)


def _why(error: Exception) -> str:
    return (
        "it is no sum of parameters" if isinstance(error, SyntaxError) else str(error)
    )


def _pieces(text: str) -> list[str]:
    return [piece.strip() for _, piece in split(text, ",") if piece.strip()]


def _aliased(text: str, names: Sequence[str]) -> str:
    """Names as ``_p0_``, ``_p1_``, ...; the longest first, in quotes or not."""
    order = sorted(range(len(names)), key=lambda j: -len(str(names[j])))
    options = []
    for j in order:
        name = re.escape(str(names[j]))
        before = r"(?<![\w.\]])" if re.match(r"\w", str(names[j])) else ""
        after = r"(?![\w.\[(:])" if re.search(r"\w\Z", str(names[j])) else ""
        options.append(f"(?P<p{j}>{before}(?:{name}){after}|`{name}`)")

    def alias(found: re.Match) -> str:
        return f"_{found.lastgroup}_"

    return re.sub("|".join(options), alias, text)


def _linear(text: str, k: int) -> np.ndarray:
    """(k + 1,) coefficients and constant of an expression."""
    return _of(ast.parse(text.strip(), mode="eval").body, k)


def _of(node: ast.AST, k: int) -> np.ndarray:
    out = np.zeros(k + 1)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        out[-1] = float(node.value)
        return out
    if isinstance(node, ast.Name):
        found = re.fullmatch(r"_p(\d+)_", node.id)
        if found is None:
            raise ValueError(f"there is no parameter {node.id!r}")
        out[int(found.group(1))] = 1.0
        return out
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _of(node.operand, k)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        left, right = _of(node.left, k), _of(node.right, k)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult) and not left[:-1].any():
            return left[-1] * right
        if isinstance(node.op, ast.Mult) and not right[:-1].any():
            return left * right[-1]
        if isinstance(node.op, ast.Div) and not right[:-1].any() and right[-1]:
            return left / right[-1]
    raise ValueError(f"{ast.unparse(node)!r} is not linear in the parameters")
