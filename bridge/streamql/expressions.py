"""Expressions, by precedence: or, and, not, comparison and ``is null``, + and -, * / and %, unary minus."""

from __future__ import annotations

from bridge.streamql.cursor import Cursor
from bridge.streamql.syntax import (
    AttributeRef,
    AttributeType,
    Binary,
    Call,
    Expression,
    Literal,
    Unary,
)
from bridge.streamql.tokens import Kind, Token

MAX_DEPTH = 50
"""Levels of nesting: real definitions have a few, and deeper ones would end in a RecursionError."""

_SUFFIXES = {
    "l": AttributeType.LONG,
    "f": AttributeType.FLOAT,
    "d": AttributeType.DOUBLE,
}


class ExpressionReader:
    """Reads one expression after another from a cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._depth = 0

    def read(self) -> Expression:
        """The expression that comes.

        Raises:
            StreamQLError: none comes, or it is nested too deeply.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._cursor.source.error(
                self._cursor.peek().start, f"this expression is nested over {MAX_DEPTH} levels deep"
            )
        expression = self._or()
        self._depth -= 1
        return expression

    def _or(self) -> Expression:
        left = self._and()
        while self._cursor.at_word("or"):
            token = self._cursor.next()
            left = Binary("or", left, self._and(), self._cursor.place_of(token))
        return left

    def _and(self) -> Expression:
        left = self._not()
        while self._cursor.at_word("and"):
            token = self._cursor.next()
            left = Binary("and", left, self._not(), self._cursor.place_of(token))
        return left

    def _not(self) -> Expression:
        negations: list[Token] = []
        while self._cursor.at_word("not"):
            negations.append(self._cursor.next())
        expression = self._comparison()
        for token in reversed(negations):
            expression = Unary("not", expression, self._cursor.place_of(token))
        return expression

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            token = self._cursor.peek()
            if token.is_symbol("==", "!=", "<", "<=", ">", ">="):
                self._cursor.next()
                left = Binary(token.text, left, self._sum(), self._cursor.place_of(token))
            elif token.is_symbol("="):
                raise self._cursor.source.error(token.start, "equality is written ==")
            elif token.is_word("is"):
                self._cursor.next()
                self._cursor.expect_word("null")
                left = Unary("is null", left, self._cursor.place_of(token))
            else:
                return left

    def _sum(self) -> Expression:
        left = self._product()
        while self._cursor.at_symbol("+", "-"):
            token = self._cursor.next()
            left = Binary(token.text, left, self._product(), self._cursor.place_of(token))
        return left

    def _product(self) -> Expression:
        left = self._signed()
        while self._cursor.at_symbol("*", "/", "%"):
            token = self._cursor.next()
            left = Binary(token.text, left, self._signed(), self._cursor.place_of(token))
        return left

    def _signed(self) -> Expression:
        signs: list[Token] = []
        while self._cursor.at_symbol("-"):
            signs.append(self._cursor.next())
        expression = self._primary()
        for token in reversed(signs):
            expression = Unary("-", expression, self._cursor.place_of(token))
        return expression

    def _primary(self) -> Expression:
        cursor = self._cursor
        token = cursor.peek()
        place = cursor.place_of(token)
        if cursor.take_symbol("("):
            expression = self.read()
            cursor.expect_symbol(")")
            return expression
        if token.kind is Kind.NUMBER:
            cursor.next()
            return _number(token, self._cursor)
        if token.kind is Kind.STRING:
            cursor.next()
            return Literal(token.text, AttributeType.STRING, place)
        if token.is_word("true", "false") and not cursor.peek(1).is_symbol("("):
            cursor.next()
            return Literal(token.text.lower() == "true", AttributeType.BOOL, place)
        cursor.expect_name("an expression")
        if cursor.at_symbol(":"):
            cursor.next()
            name = cursor.expect_name("a function's name")
            return Call(name.text, token.text, self._arguments(), place)
        if cursor.at_symbol("("):
            return Call(token.text, None, self._arguments(), place)
        if cursor.take_symbol("."):
            name = cursor.expect_name("an attribute's name")
            return AttributeRef(name.text, token.text, place)
        return AttributeRef(token.text, None, place)

    def _arguments(self) -> tuple[Expression, ...]:
        cursor = self._cursor
        cursor.expect_symbol("(")
        arguments: list[Expression] = []
        if not cursor.at_symbol(")"):
            arguments.append(self.read())
            while cursor.take_symbol(","):
                arguments.append(self.read())
        cursor.expect_symbol(")", expected="',' or ')'")
        return tuple(arguments)


def _number(token: Token, cursor: Cursor) -> Literal:
    place = cursor.place_of(token)
    text = token.text.lower()
    kind = _SUFFIXES.get(text[-1])
    if kind is not None:
        text = text[:-1]
    is_whole = text.isdecimal()
    if kind is None:
        kind = AttributeType.INT if is_whole else AttributeType.DOUBLE
    if kind in (AttributeType.INT, AttributeType.LONG):
        bits = 31 if kind is AttributeType.INT else 63
        # Checked by length first: int() refuses to read thousands of digits.
        if not is_whole or len(text) > 20 or int(text) > 2**bits - 1:
            raise cursor.source.error(token.start, f"this number does not fit {kind.value}")
        return Literal(int(text), kind, place)
    return Literal(float(text), kind, place)
