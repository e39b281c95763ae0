"""Jinja templates, each stored beside the module that renders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template


def load_template(
    path: Path, filters: Mapping[str, Callable[..., object]], finalize: Callable[[Any], Any] | None = None
) -> Template:
    """Load a template whose values are escaped, unless they are :class:`markupsafe.Markup`; unknown names are errors.

    Args:
        path: The template's file; it may include other files of its folder.
        filters: Further filters by name.
        finalize: Applied to each value before it is escaped as HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    known: dict[str, Any] = environment.filters
    known.update({"thousands": "{:,}".format, **filters})
    return environment.get_template(path.name)
