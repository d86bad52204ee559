"""Names of a user's levels and coefficients, as they stand and no longer than fits.

Matplotlib reads what lies between two dollar signs as mathematics, and everything as
TeX where a user has asked for that; a name is neither. Names of which many are shown
together stay different when they are cut.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

AS_IS = {"parse_math": False, "usetex": False}  # of every text with a name in it
CUT = "…"
KEEP = 4  # characters of a common beginning that stay


def plain(name: object) -> str:
    """A name in one line: blanks for line breaks and what cannot be printed."""
    text = str(name)
    shown = "".join(" " if unicodedata.category(c) in _UNSEEN else c for c in text)
    return " ".join(shown.split())


_UNSEEN = ("Cc", "Cs", "Zl", "Zp")


def shortened(names: Iterable[object], most: int) -> list[str]:
    """Names of at most ``most`` characters, the middle cut out of longer ones.

    Where names that differ would look alike, what they have in common is cut instead,
    and where that does not tell them apart they stay as long as it takes.
    """
    whole = _one_line([str(name) for name in names])
    cut = {text: middle(text, most) for text in whole}
    alike: dict[str, list[str]] = defaultdict(list)
    for text, short in sorted(cut.items()):
        alike[short].append(text)
    groups = [group for group in alike.values() if len(group) > 1]
    for again in (groups, [sorted(text for text in cut if len(text) > most)]):
        told = dict(cut)
        for group in again:
            told |= _told_apart(group, most)
        if len(set(told.values())) == len(told):
            return [told[text] for text in whole]
    return whole


def _one_line(names: list[str]) -> list[str]:
    """Names as they are printed; escaped where only what is unseen tells them apart."""
    out = [plain(name) for name in names]
    if len(set(out)) == len(set(names)):
        return out
    return [name.encode("unicode_escape").decode() for name in names]


def short(name: object, most: int) -> str:
    """One name of at most ``most`` characters."""
    return shortened([name], most)[0]


def middle(text: str, most: int) -> str:
    """The beginning and the end of a text that is too long."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail].rstrip()}{CUT}{text[len(text) - tail :].lstrip()}"


def _told_apart(group: list[str], most: int) -> dict[str, str]:
    """Short forms of names that look alike when their middle is cut."""
    ahead = _alike(group)
    behind = _alike([text[::-1] for text in group])
    behind = min(behind, min(map(len, group)) - ahead)
    first = max(ahead - KEEP, 0)  # a little context before the difference
    bare = {text: text[first : len(text) - max(behind - KEEP, 0)] for text in group}
    head, tail = group[0][:KEEP], CUT if behind > KEEP else ""
    head = f"{head}{CUT}" if first > KEEP else group[0][:first]
    longest = max(map(len, group))
    while True:
        room = most - len(head) - len(tail)
        out = {t: f"{head}{middle(b, max(room, 3))}{tail}" for t, b in bare.items()}
        if len(set(out.values())) == len(group):
            return out
        if most > longest:
            return {text: text for text in group}
        most = most * 3 // 2


def _alike(group: list[str]) -> int:
    """Length of the beginning that texts have in common."""
    places = enumerate(zip(*group, strict=False))
    differ = (k for k, letters in places if len(set(letters)) > 1)
    return next(differ, min(map(len, group)))


def wrapped(name: object, most: int) -> str:
    """A name for a title: in two lines at its bar where it is long, each cut."""
    text = plain(name)
    if len(text) <= most or "|" not in text:
        return middle(text, most)
    left, right = text.rsplit("|", 1)
    return f"{middle(left, most)}\n| {middle(right, most - 2)}"
