"""Text of unknown origin escaped for Markdown, so that it is shown literally."""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote

_HTML = re.compile(r"<(?=[A-Za-z/!?])|^>|&(?=#?\w+;)")
"""Characters that begin a tag, a quotation or an entity."""
_INLINE = re.compile(r"[`*\[\]~]|(?<!\w)_+|_+(?!\w)")
"""Characters that begin or end markup within a line; ``_`` inside a word does not."""
_BLOCK = re.compile(r"^([#+=-]+|\d+(?=[.)]))(?=[.)]?(?:\s|$))")
"""Characters that begin a heading, a list or a rule at the start of a line."""
# Not escaped by a backslash: `\(` begins a formula on the Hub, and a table's cells escape `|` themselves.
_ENTITIES = str.maketrans({"\\": "&#92;", "|": "&#124;", "$": "&#36;"})


def escape_markdown(text: str) -> str:
    """Return one line of Markdown that shows ``text`` without any markup or HTML; line breaks become blanks."""
    line = _HTML.sub(lambda match: escape(match[0]), " ".join(text.split())).translate(_ENTITIES)
    line = _INLINE.sub(lambda match: "".join(f"\\{character}" for character in match[0]), line)
    return _BLOCK.sub(lambda match: f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}", line)


def code_span(text: str) -> str:
    """Return ``text`` as inline code, whatever backticks it contains; line breaks become blanks."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def code_block(text: str, language: str = "text") -> str:
    """Return ``text`` as a fenced code block, whatever backticks it contains."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def link(url: str, title: str) -> str:
    """Return a link with a plain title."""
    return f"[{escape_markdown(title)}]({quote(url, safe=':/?#@!$&*+,;=%~')})"
