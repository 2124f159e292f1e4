"""Parsing of printed Python literals, which are never run, and of lists of edges in several layouts. Imports no torch."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

__all__ = ['flat_edges', 'literal', 'parsed']

_NOT_LITERAL = 'a genotype holds names, numbers, None, lists, tuples and range(a, b), nothing else'


def parsed(text: str) -> list[ast.stmt]:
    """Parses Python code into statements, and silences warnings such as Python's deprecation of invalid escape sequences.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: under the conditions of ``ast.parse``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return ast.parse(text).body


def literal(node: ast.expr) -> Any:
    """Returns the value of a literal, list, tuple, dict, ``range(a, b)``, or number that numpy or torch printed with its type.

    Raises:
        ValueError: for any other expression.
    """
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (str, int, float))):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        if isinstance(node.operand.value, (int, float)):
            return -node.operand.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return tuple(literal(element) for element in node.elts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {str(literal(key)): literal(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.Call) and not node.keywords:
        return _called(node)
    raise ValueError(_NOT_LITERAL)


def _called(node: ast.Call) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, 'attr', '')
    arguments = [literal(argument) for argument in node.args]
    if name == 'range' and 1 <= len(arguments) <= 2:
        if all(type(bound) is int and 0 <= bound < 1000 for bound in arguments):
            return tuple(range(*arguments))
    if name in ('list', 'tuple', 'array', 'tensor') and len(arguments) == 1 and isinstance(arguments[0], (tuple, int, float)):
        return arguments[0]
    if re.fullmatch(r'u?int\d*|float\d*|str_?', name) and len(arguments) == 1 and isinstance(arguments[0], (int, float, str)):
        return arguments[0]
    raise ValueError(_NOT_LITERAL)


def flat_edges(name: str, edges: Any, per_node: int) -> Any:
    """Flattens edges into (operation, input) pairs: joins lists by node, and drops a probability that follows the input.

    A value in any other layout is returned unchanged; the caller checks it.

    Args:
        name: name of the field, for messages.
        edges: the edges, in one list or in a list for each node.
        per_node: number of edges into each node.

    Raises:
        ValueError: for a graph cell, or a cell with another number of edges into a node; the message says which.
    """
    if not isinstance(edges, (list, tuple)):
        return edges
    if edges and all(_is_list_of_edges(node) for node in edges):
        counts = [len(node) for node in edges]
        if any(count != per_node for count in counts):
            raise ValueError(
                f'{name} is a graph cell: its nodes have {", ".join(map(str, counts))} inputs; '
                f'the cells that are built here have {per_node} for each node'
            )
        edges = [edge for node in edges for edge in node]
    return tuple(_pair(name, edge) for edge in edges)


def _is_list_of_edges(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and bool(node) and all(isinstance(edge, (list, tuple)) for edge in node)


def _pair(name: str, edge: Any) -> Any:
    if not isinstance(edge, (list, tuple)) or len(edge) != 3 or not isinstance(edge[0], str):
        return edge
    if isinstance(edge[2], float):
        return tuple(edge[:2])
    raise ValueError(
        f'{name} is a graph cell: {tuple(edge)!r} names both ends of an edge, operation, from and to; '
        'the cells that are built here list (operation, input), node after node'
    )
