"""YAML of strangers: a few hundred bytes can stand for any number of values. Layer 3: only for its import of PyYAML.

Aliases and merge keys name a part again; what they stand for is counted before any of it is made.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MAX_CHARS", "MAX_DEPTH", "MAX_NODES", "parsed_yaml"]

# With aliases written out.
MAX_NODES: Final = 50_000
MAX_CHARS: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 50
# Of a number: Python takes the square of the length to read it, with base 60 even its cube.
_MAX_DIGITS: Final = 400
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def parsed_yaml(data: bytes) -> Any:
    """Return the value of a YAML text, of YAML's own types only.

    Raises:
        yaml.YAMLError: If it is no YAML.
        ValueError: If it is larger or deeper than the bounds of this module, or a value is none of its type.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Weigher(yaml).weigh(node)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    finally:
        loader.dispose()


class _Weigher:
    """Counts what a text stands for; a part that is named often is looked at once."""

    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._known: dict[int, tuple[int, int, int]] = {}
        self._open: set[int] = set()

    def weigh(self, node: Any) -> tuple[int, int, int]:
        """Return the number of values, of their characters and of their levels.

        Raises:
            ValueError: If a bound is passed, or a part contains itself.
        """
        if isinstance(node, self._yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
                raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
            return 1, len(node.value), 0
        key = id(node)
        if key in self._known:
            return self._known[key]
        if key in self._open or len(self._open) > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep, or a part contains itself")
        self._open.add(key)
        nodes, chars, levels = 1, 0, 0
        for child in self._children(node):
            more_nodes, more_chars, more_levels = self.weigh(child)
            nodes += more_nodes
            chars += more_chars
            levels = max(levels, 1 + more_levels)
            if nodes > MAX_NODES or chars > MAX_CHARS or levels > MAX_DEPTH:
                raise ValueError(
                    f"it is too large or too deep: more than {MAX_NODES} values, {MAX_CHARS} characters or "
                    f"{MAX_DEPTH} levels when its aliases are written out"
                )
        self._open.discard(key)
        self._known[key] = nodes, chars, levels
        return self._known[key]

    def _children(self, node: Any) -> list[Any]:
        if isinstance(node, self._yaml.MappingNode):
            return [part for pair in node.value for part in pair]
        return list(node.value)
