"""Generate questions about directions in SpartQA's form, for training and evaluating the demonstration models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

DEMONSTRATION_SEED = 20240423
"""The published accuracies are on ``make_questions(1000, DEMONSTRATION_SEED)``."""

RELATIONS = ("left", "right", "above", "below")
"""The four candidates of every question, in SpartQA's order."""

_COMPASS = {"left": "west", "right": "east", "above": "north", "below": "south"}
_CLOCK = {"left": 9, "right": 3, "above": 12, "below": 6}

PHRASES: dict[str, dict[str, list[str]]] = {
    "plain": {
        "left": ["to the left of", "left of"],
        "right": ["to the right of", "right of"],
        "above": ["above"],
        "below": ["below"],
    },
    "compass": {
        relation: [f"{point} of", f"to the {point} of", f"due {point} of"] for relation, point in _COMPASS.items()
    },
    "clock": {
        relation: [
            f"at {hour} o'clock from",
            f"at the {hour} o'clock position of",
            f"in the {hour} o'clock direction of",
        ]
        for relation, hour in _CLOCK.items()
    },
}
"""Family -> relation -> its phrases, 30 in all."""

_OBJECTS = [
    f"{size} {colour} {shape}"
    for size, colour, shape in product(
        ("small", "medium", "big"), ("black", "blue", "yellow"), ("circle", "square", "triangle")
    )
]


def make_question(rng: random.Random, families: Sequence[str]) -> dict[str, Any]:
    """Draw one question with a phrase of one of ``families``; it has no ``id`` and no ``story_id``."""
    # The published accuracies depend on this order of draws.
    family = rng.choice(families)
    relation = rng.choice(RELATIONS)
    phrase = rng.choice(PHRASES[family][relation])
    first, second = rng.sample(_OBJECTS, 2)
    block = rng.choice("ABC")
    return {
        "story": f"There is a block called {block}. In block {block} the {first} is {phrase} the {second}.",
        "question": f"Where is the {first} relative to the {second}?",
        "candidate_answers": list(RELATIONS),
        "answer": "ABCD"[RELATIONS.index(relation)],
        "relation": relation,
        "family": family,
        "phrase": phrase,
    }


def make_questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``count`` questions, uniform over families and answers; the same seed gives the same questions.

    ``story_id`` is the phrase: a model either knows a phrase or does not, so that questions with the same phrase are
    answered alike. A test that takes them as independent is five times too sure.
    """
    rng = random.Random(seed)
    drawn = [make_question(rng, list(PHRASES)) for _ in range(count)]
    return [
        {"id": f"directions-{number}", "story_id": question["phrase"], **question}
        for number, question in enumerate(drawn)
    ]
