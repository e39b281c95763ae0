"""Which licence a merge of several models carries: policy, not legal advice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mergeline.errors import InputError

_PERMISSIVE = (
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib", "bsl-1.0"),
    *("ncsa", "postgresql", "afl-3.0", "ecl-2.0", "artistic-2.0", "unlicense", "wtfpl", "cc0-1.0", "pddl", "odc-by"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0"),
)
_NO_DERIVATIVES = ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0")
_NON_COMMERCIAL = ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0")
_NON_COMMERCIAL_ALIKE = ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0")
_COPYLEFT = (
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0"),
    *("lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "gfdl", "odbl"),
)
_FAMILIES = (
    (*_NON_COMMERCIAL, *_NON_COMMERCIAL_ALIKE),
    ("cc-by-sa-3.0", "cc-by-sa-4.0"),
    ("mpl-2.0", "lgpl-3.0", "gpl-3.0", "agpl-3.0"),
)
"""Each licence can be combined with those after it, whose terms then hold."""
_LLAMA = ("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4")
_COMMUNITY = (
    *_LLAMA,
    *("gemma", "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "bigcode-openrail-m"),
    *("bigscience-bloom-rail-1.0", "deepfloyd-if-license", "apple-ascl"),
)
_RESEARCH = ("apple-amlr", "intel-research", "h-research", "fair-noncommercial-research-license")
_UNKNOWN = "unknown"
_TERMS_KNOWN = {
    *(*_PERMISSIVE, *_NO_DERIVATIVES, *_NON_COMMERCIAL, *_NON_COMMERCIAL_ALIKE, *_COPYLEFT, *_COMMUNITY, *_RESEARCH)
}


@dataclass(frozen=True)
class Licence:
    """The licence of a merge as its card declares it."""

    identifier: str
    """One of the Hub's identifiers; ``other`` where none of them says it, ``unknown`` where a source declares none."""
    name: str | None
    """``license_name`` of the card, where the identifier is ``other``."""
    is_publishable: bool
    """Whether the declared terms let the merge be shared publicly at all."""
    reasons: tuple[str, ...]
    """What led to this and what it asks of those who share the merge, in sentences."""


def result_licence(licences: Sequence[str | None]) -> Licence:
    """Return the licence of a merge of models with these licences: the strictest, if they can hold together.

    This is a policy that a careful publisher can start from, not legal advice.

    Args:
        licences: What each source's card declares, a Hub identifier or a name of its own; None where nothing is said.
    """
    declared = sorted({_normalised(licence) for licence in licences} or {_UNKNOWN})
    restricted = [licence for licence in declared if licence not in _PERMISSIVE]
    if not restricted:
        return _permissive(declared)
    conflict = _conflict(restricted)
    if conflict is not None:
        return _declare(restricted, "conflicting-terms", [conflict], is_publishable=False)
    strictest = _strictest(restricted)
    reasons = [reason for licence in strictest for reason in _obligations(licence)]
    if len(strictest) > 1:
        reasons.insert(0, f"The terms of {_listed(strictest)} all hold; ship the text of each.")
        return _declare(strictest, "multiple", reasons)
    if len(declared) > 1:
        others = [licence for licence in declared if licence != strictest[0]]
        reasons.append(f"The notices that {_listed(others)} asks for stay with the merge.")
    return _declare(strictest, strictest[0], reasons)


def require_publishable(licences: Sequence[str | None], *, is_public: bool) -> None:
    """Raise :class:`InputError` where a merge of such models may not be shared, unless it stays private."""
    licence = result_licence(licences)
    if is_public and not licence.is_publishable:
        raise InputError(f"licence: {' '.join(licence.reasons)} Publish it to a private repository, or not at all.")


def _normalised(licence: str | None) -> str:
    return (licence or "").strip().lower() or _UNKNOWN


def _permissive(declared: Sequence[str]) -> Licence:
    if len(declared) == 1:
        return Licence(declared[0], None, True, (f"Every source is under {declared[0]}.",))
    return Licence("apache-2.0", None, True, (f"The sources are under {_listed(declared)}; keep the notices of each.",))


def _conflict(restricted: Sequence[str]) -> str | None:
    """Say why these cannot be shared together, if they cannot."""
    fixed = [licence for licence in restricted if licence in _NO_DERIVATIVES]
    if fixed:
        return f"A merge is a derivative, and {_listed(fixed)} does not let derivatives be shared."
    known = [licence for licence in restricted if licence in _TERMS_KNOWN]
    # Share-alike terms suffer no others beside them, except where one licence of a family makes room for the next.
    alike = [licence for licence in known if licence in (*_COPYLEFT, *_NON_COMMERCIAL_ALIKE)]
    is_one_family = any(set(known) <= set(family) for family in _FAMILIES)
    if alike and len(known) > 1 and not is_one_family:
        return f"The terms of {_listed(known)} exclude each other: {alike[0]} allows no further restrictions."
    return None


def _strictest(restricted: Sequence[str]) -> list[str]:
    """Drop what a stricter licence of the same family covers."""
    kept = list(restricted)
    for family in _FAMILIES:
        members = [licence for licence in family if licence in kept]
        kept = [licence for licence in kept if licence not in members[:-1]]
    return kept


def _obligations(licence: str) -> tuple[str, ...]:
    if licence == _UNKNOWN:
        return ("A source declares no licence: without one there is no permission; ask its owner.",)
    if licence in (*_NON_COMMERCIAL, *_NON_COMMERCIAL_ALIKE):
        return (f"{licence} forbids commercial use.",)
    if licence in _RESEARCH or "research" in licence:
        return (f"{licence} is read as forbidding commercial use.",)
    if licence in _LLAMA:
        return (
            f'{licence}: ship its text and notice, and say "Built with Llama"; from 3.1 on it also rules the name.',
        )
    if licence in _COMMUNITY:
        return (f"{licence}: ship its text; its limits on use hold for the merge too.",)
    if licence in _COPYLEFT:
        return (f"{licence}: whoever shares the merge does so under the same terms.",)
    return (f"{licence} is not a licence this policy knows; read its text before sharing.",)


def _declare(licences: Sequence[str], name: str, reasons: Sequence[str], *, is_publishable: bool = True) -> Licence:
    """Declare the one licence by its identifier if the Hub has it, else ``other`` with a name."""
    if len(licences) == 1 and (licences[0] in _TERMS_KNOWN or licences[0] == _UNKNOWN):
        return Licence(licences[0], None, is_publishable, tuple(reasons))
    slug = re.sub(r"[^a-z0-9.+-]+", "-", "unspecified" if name == "other" else name).strip("-")
    return Licence("other", slug, is_publishable, tuple(reasons))


def _listed(licences: Sequence[str]) -> str:
    return " and ".join(licences)
