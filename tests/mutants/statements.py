"""Changes that Cosmic Ray has no operators for, with the interface of its operators: no statement, no result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso

Positions = Iterator[tuple[tuple[int, int], tuple[int, int]]]

_DELETABLE = {"expr_stmt", "atom_expr", "power", "raise_stmt", "del_stmt", "yield_expr"}


def _replace(node: Any, index: int, code: str) -> Any:
    """Replace the child ``index`` of a node by code; text before it on the line stays."""
    prefix = node.children[index].get_first_leaf().prefix
    new = parso.parse(code).children[0]
    new.get_first_leaf().prefix = prefix
    node.children[index] = new
    return node


class Delete:
    """Leaves out a call, an assignment, a ``raise`` or a ``del``; type declarations stay."""

    def mutation_positions(self, node: Any) -> Positions:
        if node.type == "simple_stmt" and node.children[0].type in _DELETABLE:
            statement = node.children[0]
            annotated = [child for child in getattr(statement, "children", ()) if child.type == "annassign"]
            if not annotated or "=" in [child.get_code().strip() for child in annotated[0].children]:
                yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        assert index == 0
        return _replace(node, 0, "pass")


class ReturnNone:
    """Returns None instead of a value."""

    def mutation_positions(self, node: Any) -> Positions:
        if node.type == "return_stmt" and node.children[1].get_code().strip() != "None":
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        assert index == 0
        return _replace(node, 1, "None")


STATEMENTS: dict[str, Any] = {"statement/Delete": Delete(), "statement/ReturnNone": ReturnNone()}
