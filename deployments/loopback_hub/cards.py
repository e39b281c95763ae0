"""The front matter of a README.md: reading and checking it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from deployments.loopback_hub.contents import Contents
from deployments.loopback_hub.messages import Answer, Request
from deployments.loopback_hub.repositories import Commit
from deployments.loopback_hub.site import Site

_FRONT_MATTER = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---\s*(?:[\r\n]|$)", re.DOTALL)


def problem_of(readme: str) -> str | None:
    """Return what is wrong with the front matter; None if nothing is."""
    match = _FRONT_MATTER.match(readme)
    try:
        card = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return f"Invalid metadata in README.md: {' '.join(str(error).split())}"
    if not isinstance(card, dict | None):
        return f"Invalid metadata in README.md: expected a mapping, found {type(card).__name__}"
    return None


def card_of(commit: Commit, contents: Contents) -> dict[str, Any]:
    """Return the front matter of the commit's README.md; empty without one."""
    readme = commit.files.get("README.md")
    if readme is None or readme.sha256 is not None:
        return {}
    text = contents.blob(readme.oid).read_text("utf-8", "replace")
    match = _FRONT_MATTER.match(text)
    if match is None or problem_of(text):
        return {}
    # YAML has dates, JSON has not.
    return json.loads(json.dumps(yaml.safe_load(match[1]) or {}, default=str))


def validate(site: Site, request: Request) -> Answer:
    """Answer whether a README.md would be accepted; clients ask before they upload."""
    problem = problem_of(str(request.json().get("content", "")))
    errors = [{"message": problem}] if problem else []
    return Answer.of_json({"errors": errors, "warnings": []}, 400 if errors else 200)
