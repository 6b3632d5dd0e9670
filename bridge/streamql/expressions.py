"""Expressions of the simple query form.

Operators from the loosest binding to the tightest, as in the vendor's page on queries: ``or``, ``and``, ``== !=``,
``< <= > >=``, ``+ -``, ``* / %``, ``not`` and the sign, ``is null``. So ``not a > b`` is ``(not a) > b``: write
``not (a > b)``. Anything else that the language has raises NotSimpleError: the query may be valid, but the tree can't
represent it.
"""

from __future__ import annotations

import math

from bridge.streamql.syntax import (
    AttributeRef,
    AttributeType,
    Binary,
    Call,
    Expression,
    Literal,
    Place,
    Unary,
)
from bridge.streamql.token_reader import TokenReader
from bridge.streamql.tokens import Token, TokenKind

MAX_NESTING = 50
"""Nested parentheses, calls and prefixes; more would exhaust Python's stack while parsing."""
MAX_DEPTH = 150
"""Levels of a tree (``a or b or …`` has one for each ``or``); more would exhaust the stack while walking it."""

LEVELS = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(("==", "!="), 3),
    **dict.fromkeys(("<", "<=", ">", ">="), 4),
    **dict.fromkeys(("+", "-"), 5),
    **dict.fromkeys(("*", "/", "%"), 6),
}
"""The precedence of each binary operator: a higher level binds tighter; all are left-associative."""
PREFIX = 7
"""The level of ``not`` and the sign: tighter than any binary operator, looser than ``is null``."""
# An attribute may have the name of any keyword but these: here a missing operand is more likely than such a column.
_NO_OPERAND = ("from", "as", "and", "or", "is", "in")
_TIME_UNITS = tuple(
    unit + ending
    for unit in ("millisecond", "millisec", "second", "sec", "minute", "min", "hour", "day", "week", "month", "year")
    for ending in ("", "s")
)
_LIMITS = {AttributeType.INT: 2**31, AttributeType.LONG: 2**63}
_LONGEST_NUMBER = 400


class NotSimpleError(Exception):
    """The query uses a construct that the tree can't represent; ``construct`` names it in words."""

    def __init__(self, construct: str, place: Place) -> None:
        super().__init__(construct)
        self.construct = construct
        self.place = place


def read_expression(cursor: TokenReader) -> Expression:
    """Parse one expression. The place of an operator's node is that of the operator.

    Raises:
        StreamQLError: an operand is missing, or the nesting is too deep.
        NotSimpleError: it uses a construct that ``Expression`` can't represent.
    """
    expression = _ExpressionReader(cursor).read(1)
    too_deep = _deeper_than(MAX_DEPTH, expression)
    if too_deep is not None:
        raise NotSimpleError(f"an expression of more than {MAX_DEPTH} levels", too_deep.place)
    return expression


class _ExpressionReader:
    def __init__(self, cursor: TokenReader) -> None:
        self._cursor = cursor
        self._nesting = 0

    def read(self, lowest: int) -> Expression:
        """An expression whose operators bind at least as tightly as ``lowest``."""
        cursor = self._cursor
        left = self._operand()
        while True:
            self._refuse_unknown_operator()
            token = cursor.peek()
            operator = token.text.lower() if token.kind in (TokenKind.WORD, TokenKind.SYMBOL) else ""
            level = LEVELS.get(operator, 0)
            if level < lowest:
                return left
            cursor.next()
            # The right operand takes only operators that bind tighter: equal ones group from the left.
            left = Binary(operator, left, self.read(level + 1), cursor.place_of(token))

    def _refuse_unknown_operator(self) -> None:
        cursor = self._cursor
        if cursor.at_word("in") or (cursor.at_word("not") and cursor.peek(1).is_word("in")):
            raise NotSimpleError("IN", cursor.place)
        if cursor.at_symbol("="):
            raise cursor.unexpected("'==' (a single '=' is not a comparison)")

    def _null_test(self, operand: Expression) -> Expression:
        cursor = self._cursor
        token = cursor.next()
        if cursor.at_word("not"):
            raise NotSimpleError("IS NOT NULL", cursor.place_of(token))
        cursor.expect_word("null")
        return Unary("is null", operand, cursor.place_of(token))

    def _operand(self) -> Expression:
        cursor = self._cursor
        token = cursor.peek()
        if token.is_symbol("+") and cursor.peek(1).kind is TokenKind.NUMBER:
            cursor.next()  # +5 is 5
        elif token.is_word("not") or token.is_symbol("-"):
            cursor.next()
            return Unary(token.text.lower(), self._nested(PREFIX, token), cursor.place_of(token))
        operand = self._primary()
        while cursor.at_word("is"):
            operand = self._null_test(operand)
        return operand

    def _primary(self) -> Expression:
        cursor = self._cursor
        token = cursor.peek()
        if token.is_symbol("("):
            cursor.next()
            inner = self._nested(1, token)
            self._close(token)
            return inner
        if token.kind is TokenKind.STRING:
            cursor.next()
            return Literal(token.text, AttributeType.STRING, cursor.place_of(token))
        if token.kind is TokenKind.NUMBER:
            return self._number()
        if token.is_symbol("*"):
            raise NotSimpleError("'*' as a value", cursor.place)
        is_call = cursor.peek(1).is_symbol("(") and token.is_word("and", "or")  # also names of aggregate functions
        if not token.is_name or (token.is_word(*_NO_OPERAND) and not is_call):
            raise cursor.unexpected("an expression")
        return self._named()

    def _nested(self, lowest: int, opening: Token) -> Expression:
        if self._nesting == MAX_NESTING:
            raise self._cursor.source.error(
                opening.start, f"expected at most {MAX_NESTING} nested parentheses, calls and signs"
            )
        self._nesting += 1
        inner = self.read(lowest)
        self._nesting -= 1
        return inner

    def _close(self, opening: Token) -> None:
        cursor = self._cursor
        if cursor.peek().kind is TokenKind.END or cursor.at_symbol(";"):
            raise cursor.source.error(opening.start, "this '(' is never closed: expected ')'")
        cursor.expect_symbol(")", expected="an operator or ')'")

    def _number(self) -> Expression:
        cursor = self._cursor
        token = cursor.next()
        if cursor.at_word(*_TIME_UNITS):
            raise NotSimpleError("a time constant", cursor.place_of(token))
        digits, suffix = token.text, token.text[-1].lower()
        if suffix in "lfd":
            digits = digits[:-1]
        is_whole = digits.isdigit()
        if suffix == "l" and not is_whole:
            raise cursor.source.error(token.start, "expected a whole number before the suffix L")
        if is_whole and suffix not in "fd":
            number_type = AttributeType.LONG if suffix == "l" else AttributeType.INT
            # The sign is read separately, so the limit includes the one number that fits only when negative.
            if len(digits) > _LONGEST_NUMBER or int(digits) > _LIMITS[number_type]:
                advice = "; write a long with the suffix L" if number_type is AttributeType.INT else ""
                raise cursor.source.error(
                    token.start, f"this number is too large: expected one that fits {number_type.value}{advice}"
                )
            return Literal(int(digits), number_type, cursor.place_of(token))
        number = float(digits)
        if math.isinf(number):
            raise cursor.source.error(token.start, "this number is too large: expected one that fits double")
        number_type = AttributeType.FLOAT if suffix == "f" else AttributeType.DOUBLE
        return Literal(number, number_type, cursor.place_of(token))

    def _named(self) -> Expression:
        cursor = self._cursor
        name = cursor.next()
        place = cursor.place_of(name)
        if cursor.at_symbol("("):
            return Call(name.text, None, self._arguments(), place)
        if cursor.take_symbol(":"):
            function = cursor.expect_name(f"a function's name after '{name.text}:'")
            if not cursor.at_symbol("("):
                raise cursor.unexpected("'(' after the function's name")
            return Call(function.text, name.text, self._arguments(), place)
        return self._attribute(name, place)

    def _attribute(self, name: Token, place: Place) -> Expression:
        """An attribute, or a keyword that is a value; ``name`` has been taken."""
        cursor = self._cursor
        source = None
        attribute = name
        if cursor.take_symbol("."):
            if cursor.at_symbol("*"):
                raise NotSimpleError("'*' as a value", place)
            source, attribute = name.text, cursor.expect_name(f"an attribute's name after '{name.text}.'")
        if cursor.at_symbol("."):
            raise NotSimpleError("a path into an attribute", place)
        if cursor.at_symbol("["):
            raise NotSimpleError("an indexed event of a pattern", place)
        # After a dot, a keyword is an attribute's name.
        keyword = self._keyword(name, place) if source is None else None
        return keyword or AttributeRef(attribute.text, source, place)

    def _keyword(self, name: Token, place: Place) -> Literal | None:
        """The constant that a keyword is; None if it is an attribute's name."""
        if name.is_word("true", "false"):
            return Literal(name.is_word("true"), AttributeType.BOOL, place)
        if name.is_word("null"):
            raise NotSimpleError("NULL as a value", place)
        if name.is_word("case") and self._cursor.at_word("when"):
            raise NotSimpleError("CASE", place)
        return None

    def _arguments(self) -> tuple[Expression, ...]:
        cursor = self._cursor
        opening = cursor.next()
        arguments: list[Expression] = []
        if cursor.take_symbol(")"):
            return ()
        while True:
            arguments.append(self._nested(1, opening))
            if not cursor.take_symbol(","):
                break
        self._close(opening)
        return tuple(arguments)


def _deeper_than(limit: int, expression: Expression) -> Expression | None:
    waiting = [(expression, 1)]  # not recursive: the tree may be deeper than the stack
    while waiting:
        node, depth = waiting.pop()
        if depth > limit:
            return node
        match node:
            case Call():
                waiting.extend((argument, depth + 1) for argument in node.arguments)
            case Unary():
                waiting.append((node.operand, depth + 1))
            case Binary():
                waiting.extend(((node.left, depth + 1), (node.right, depth + 1)))
    return None
