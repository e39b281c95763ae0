"""The front matter of a README.md: what the Hub reads in it and what it refuses."""

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
    """Say what is wrong with the front matter, if anything."""
    match = _FRONT_MATTER.match(readme)
    try:
        card = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return f"Invalid metadata in README.md: {' '.join(str(error).split())}"
    if not isinstance(card, dict | None):
        return f"Invalid metadata in README.md: expected a mapping, found {type(card).__name__}"
    return None


def card_of(commit: Commit, contents: Contents) -> dict[str, Any]:
    """Give the front matter of the commit's README.md; empty without one."""
    readme = commit.files.get("README.md")
    if readme is None or readme.sha256 is not None:
        return {}
    text = contents.blob(readme.oid).read_text("utf-8", "replace")
    match = _FRONT_MATTER.match(text)
    if match is None or problem_of(text):
        return {}
    # YAML knows dates, JSON does not.
    return json.loads(json.dumps(yaml.safe_load(match[1]) or {}, default=str))


def tags_of(card: dict[str, Any]) -> list[str]:
    """Give the tags that the Hub derives from a card."""
    tags = [*_items(card, "tags"), *_items(card, "library_name"), *_items(card, "pipeline_tag")]
    tags += [f"license:{name}" for name in _items(card, "license")]
    tags += [f"dataset:{name}" for name in _items(card, "datasets")]
    for base in _items(card, "base_model"):
        tags += [f"base_model:{base}"]
        tags += [f"base_model:{relation}:{base}" for relation in _items(card, "base_model_relation")]
    return list(dict.fromkeys(tags))


def validate(site: Site, request: Request) -> Answer:
    """Answer whether a README.md would be accepted; clients ask before they upload."""
    problem = problem_of(str(request.json().get("content", "")))
    errors = [{"message": problem}] if problem else []
    return Answer.of_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _items(card: dict[str, Any], key: str) -> list[str]:
    value = card.get(key) or []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
