"""The package's docstrings as reStructuredText.

They are written to be read in an editor: ``name: meaning`` lists the fields of a
record, and a bar is a bar. Here fields become a list, and bars keep Sphinx from reading
them as substitutions. What only the package itself calls is left out.
"""

from __future__ import annotations

import re
from typing import Any

FIELD = re.compile(r"^[a-zA-Z_][\w, ]{0,60}: \S")
LITERAL = re.compile(r"(``.+?``|`[^`]+`)")

INTERNAL = {
    "answers", "checked_ddf", "drawn", "empirical_parts", "engine", "estimates",
    "fixed_part", "from_table", "has_likelihood", "in_words", "is_linear",
    "kenward_roger_of", "kenward_roger_parts", "kept_diagnostics", "kept_estimates",
    "like", "model_facts", "place", "plain_df", "restored", "robust_facts",
    "satterthwaite_parts", "showing", "source", "take_robust", "unfolded", "vcov_kinds",
    "with_design", "working",
}  # fmt: skip


def escaped(line: str) -> str:
    """A line whose bars and stars outside literals are plain text."""
    head, line = (line[:2], line[2:]) if line.startswith("* **") else ("", line)
    parts = LITERAL.split(line)
    marks = re.compile(r"\|" if head else r"(?<!\\)[|*]")
    plain = (p if i % 2 else marks.sub(r"\\\g<0>", p) for i, p in enumerate(parts))
    return head + "".join(plain)


def listed(lines: list[str]) -> list[str]:
    """Paragraphs of ``name: meaning`` as lists."""
    out: list[str] = []
    inside = False
    for i, line in enumerate(lines):
        if i and FIELD.match(line) and (inside or not lines[i - 1].strip()):
            names, _, meaning = line.partition(": ")
            line, inside = f"* **{names}**: {meaning}", True
        elif inside and line.strip():
            line = "  " + line.strip()
        else:
            inside = False
        out.append(line)
    return out


def process(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Called for every docstring, before it is read as Google's style."""
    made = listed(lines) if what == "class" else lines
    code = False  # examples stay as they are
    out: list[str] = []
    for line in made:
        code = line.lstrip().startswith((">>>", "...")) or (code and bool(line.strip()))
        out.append(line if code else escaped(line))
    lines[:] = out


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> Any:
    """True for what only the package calls."""
    return True if name in INTERNAL else None


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
