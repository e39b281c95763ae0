"""A YAML loader whose time and memory are bounded, and whose every failure names a line."""

from __future__ import annotations

from typing import Any

import yaml

MAX_VALUES = 20_000
"""Keys and values of a document, counted wherever an alias repeats them. A merge of 100 slices has some 5,000."""
MAX_DEPTH = 50
_MAX_PLAIN_CHARACTERS = 100
"""PyYAML takes seconds for a number in base 60 of 100 kB, and Python refuses to print integers of 5,000 digits."""
_CHARACTERS_PER_VALUE = 100
"""Of a text, so many characters count as one more value: aliases can multiply a long text too."""


class RefusedYamlError(yaml.MarkedYAMLError):
    """YAML that is too large, too deep or recursive, or contains a value that Python cannot represent."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class BoundedLoader(yaml.SafeLoader):
    """Refuses a document while composing it, before aliases are expanded and before the parser's recursion overflows.

    ``construct_document`` afterwards raises nothing but :class:`yaml.YAMLError`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._value_count = self._depth = 0
        self._extents: dict[yaml.Node | None, tuple[int, int]] = {}
        """Composed node -> number of values in it, aliases expanded, and their levels of nesting."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        # The scanner reads up to 1,024 characters ahead of the composer, in time quadratic in the open brackets.
        if self.flow_level >= MAX_DEPTH:
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        mark: Any = event.start_mark
        count_before = self._value_count
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(mark)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if node not in self._extents:
                raise RefusedYamlError(f"*{event.anchor} stands inside the value that it repeats; remove it", mark)
            value_count, levels = self._extents[node]
            if self._depth + levels - 1 > MAX_DEPTH:
                raise _too_deep(mark)
            self._value_count += value_count
        else:
            self._value_count += 1
            if isinstance(node, yaml.ScalarNode):
                self._value_count += len(node.value) // _CHARACTERS_PER_VALUE
            levels = 1 + max((self._extents[child][1] for child in _children(node)), default=0)
            self._extents[node] = self._value_count - count_before, levels
        if self._value_count > MAX_VALUES:
            raise RefusedYamlError(f"more than {MAX_VALUES:,} values, aliases expanded; write fewer", mark)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        is_plain = isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:str"
        if is_plain and len(node.value) > _MAX_PLAIN_CHARACTERS:
            raise RefusedYamlError(_unreadable(node), node.start_mark)
        try:
            value: Any = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()  # the escape \ud800 is half a character: no file can hold it
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise RefusedYamlError(_unreadable(node), node.start_mark) from None
        return value


def _too_deep(mark: yaml.Mark) -> RefusedYamlError:
    return RefusedYamlError(f"nested more than {MAX_DEPTH} levels deep; a recipe or pipeline needs about 10", mark)


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _unreadable(node: yaml.Node) -> str:
    text = f"{node.value[:40]!r}..." if len(node.value) > 40 else repr(node.value)
    kind = node.tag.rpartition(":")[2]
    return f"{text} cannot be read as {kind}" + ("" if kind == "str" else "; quote it if it is text")
