"""One page that shows what the demo wrote: texts, calls, summaries, pictures, files."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

from jaxglmm.cli.report import STYLE, made


@dataclass(frozen=True)
class Section:
    """A title, what there is to say, the call, its summary, and the files of it."""

    title: str
    text: str
    call: str
    summary: str
    files: list[Path]


def page(title: str, sections: list[Section]) -> str:
    """HTML of all sections; pictures and tables are files beside the page."""
    body = "\n".join(map(section, sections))
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n{made()}\n</body></html>\n"
    )


def section(part: Section) -> str:
    """One example."""
    pictures = [path for path in part.files if path.suffix == ".png"]
    tables = [path for path in part.files if path.suffix != ".png"]
    figures = "".join(
        f"<figure><img alt='{html.escape(path.stem)}' "
        f"src='{html.escape(path.name)}'></figure>"
        for path in pictures
    )
    links = ", ".join(
        f"<a href='{html.escape(p.name)}'>{html.escape(p.name)}</a>" for p in tables
    )
    return (
        f"<h2>{html.escape(part.title)}</h2>\n<p>{html.escape(part.text)}</p>"
        f"<pre>{html.escape(part.call)}</pre>"
        f"<div class='wide'><pre>{html.escape(part.summary)}</pre></div>"
        f"{figures}<p class='fact'>Tables: {links}</p>"
    )
