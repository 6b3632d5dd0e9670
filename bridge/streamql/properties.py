"""Annotations, and the ``key = value`` lists of annotations and WITH(…) (gdn-api.md F.2, F.4)."""

from __future__ import annotations

from typing import NamedTuple

from bridge.streamql.source import Source
from bridge.streamql.syntax import Annotation, Place
from bridge.streamql.token_reader import TokenReader
from bridge.streamql.tokens import Token, TokenKind

Properties = dict[str, "Property"]


class Property(NamedTuple):
    """A property's value, and the position of its key."""

    value: str
    place: Place


def read_properties(cursor: TokenReader) -> Properties:
    """Parse ``WITH (key = value, …)``: by key as written, the last of equal keys wins.

    The documentation also has annotations of version 1 among them: ``@attributes(…)`` becomes the property
    ``map.attributes``, ``@map(type='json', …)`` the properties ``map.type``, …; others are skipped.
    """
    cursor.expect_word("with")
    cursor.expect_symbol("(")
    properties: Properties = {}
    while not cursor.at_symbol(")"):
        place = cursor.place
        if cursor.at_symbol("@"):
            properties |= _annotated(cursor)
        elif not (key := _key(cursor)):
            raise cursor.unexpected("a property's name or ')'")
        elif not cursor.take_symbol("="):  # doesn't show what was found: it may be a password
            raise cursor.source.error(cursor.peek().start, f"expected '=' after the property {key}")
        else:
            properties[key] = Property(_value(cursor, of=key), place)
        if not cursor.take_symbol(","):
            break
    cursor.expect_symbol(")", expected="',' or ')' after a property")
    return properties


def _annotated(cursor: TokenReader, *, is_nested: bool = False) -> Properties:
    """Parse an annotation among properties; returns the properties that it stands for."""
    place = cursor.place
    name = _annotation_name(cursor).lower()
    properties: Properties = {}
    if not cursor.take_symbol("("):
        return properties
    first = cursor.peek()
    while not cursor.at_symbol(")"):
        at = cursor.place
        if cursor.at_symbol("@") and is_nested:
            _skip_annotation(cursor)
        elif cursor.at_symbol("@"):
            properties |= _annotated(cursor, is_nested=True)
        else:
            key = _key(cursor) if _at_key(cursor) else None
            if key is not None:
                cursor.expect_symbol("=")
            value = _value(cursor, of=key or f"@{name}")
            if name == "map" and key is not None:
                properties[f"map.{key}"] = Property(value, at)
        if not cursor.take_symbol(","):
            break
    if name == "attributes":
        properties["map.attributes"] = Property(cursor.text_since(first), place)
    cursor.expect_symbol(")", expected=f"',' or ')' in @{name}")
    return properties


def read_mapping_list(text: str) -> list[tuple[str | None, str]]:
    """Parse the value of ``map.attributes``: ``a = 'x.y', b = 'z'`` or ``'x.y', 'z'``.

    Returns:
        The name (None: not given) and the path of each, in their order.

    Raises:
        StreamQLError: it isn't such a list.
    """
    cursor = TokenReader(Source(text))
    found: list[tuple[str | None, str]] = []
    while not cursor.at_end_of_statement:
        key = _key(cursor) if _at_key(cursor) else None
        if key is not None:
            cursor.expect_symbol("=")
        found.append((key, _value(cursor, of=key or "map.attributes")))
        if not cursor.take_symbol(","):
            break
    if not cursor.at_end_of_statement:
        raise cursor.unexpected("',' and the next attribute")
    return found


def read_annotation(cursor: TokenReader) -> Annotation:
    """Parse ``@name``, ``@App:name('x')`` or ``@info(name='x')``; annotations inside it are skipped."""
    place = cursor.place
    name = _annotation_name(cursor)
    elements: list[tuple[str | None, str]] = []
    if cursor.take_symbol("("):
        while not cursor.at_symbol(")"):
            if cursor.at_symbol("@"):
                _skip_annotation(cursor)
            else:
                key = _key(cursor) if _at_key(cursor) else None
                if key is not None:
                    cursor.expect_symbol("=")
                elements.append((key, _value(cursor, of=key or f"@{name}")))
            if not cursor.take_symbol(","):
                break
        cursor.expect_symbol(")", expected=f"',' or ')' in @{name}")
    return Annotation(name, tuple(elements), place)


def _annotation_name(cursor: TokenReader) -> str:
    cursor.expect_symbol("@")
    name = cursor.expect_name("the annotation's name after '@'").text
    while cursor.at_symbol(":", "."):
        name += cursor.next().text + cursor.expect_name(f"the rest of the annotation's name after '@{name}'").text
    return name


def _skip_annotation(cursor: TokenReader) -> None:
    """Skip an annotation with its parentheses, if it has any."""
    _annotation_name(cursor)
    depth = 0
    while not cursor.at_end_of_statement:
        if cursor.at_symbol("("):
            depth += 1
        elif cursor.at_symbol(")"):
            depth -= 1
        if depth > 0 or cursor.at_symbol(")"):
            cursor.next()
        if depth <= 0:
            return


def _is_key_part(token: Token) -> bool:
    return token.is_name or token.kind is TokenKind.NUMBER or token.is_symbol(".", "-", ":")


def _at_key(cursor: TokenReader) -> bool:
    """Whether a key and ``=`` come next."""
    if cursor.peek().kind is TokenKind.STRING:
        return cursor.peek(1).is_symbol("=")
    ahead = 0
    end = cursor.peek().start
    # The parts of a key touch each other: white space ends it.
    while _is_key_part(cursor.peek(ahead)) and cursor.peek(ahead).start == end:
        end = cursor.peek(ahead).end
        ahead += 1
    return ahead > 0 and cursor.peek(ahead).is_symbol("=")


def _key(cursor: TokenReader) -> str:
    """A key such as ``map.type``, `` `sink.id` `` or ``'sink.id'``, without spaces; empty if there is none."""
    if cursor.peek().kind is TokenKind.STRING:
        return cursor.next().text
    start = cursor.index
    end = cursor.peek().start
    while _is_key_part(cursor.peek()) and cursor.peek().start == end:
        end = cursor.next().end
    return "".join(token.text for token in cursor.tokens_since(start))


def _value(cursor: TokenReader, *, of: str) -> str:
    """A string's value, or the text up to the next comma or closing parenthesis, as written: ``5 sec``, ``text``."""
    first = cursor.peek()
    if first.kind is TokenKind.STRING:
        return cursor.next().text
    opened: list[Token] = []
    while opened or not cursor.at_symbol(",", ")"):
        token = cursor.peek()
        if token.kind is TokenKind.END and opened:
            raise cursor.source.error(opened[-1].start, f"'{opened[-1].text}' is never closed")
        if token.kind in (TokenKind.END, TokenKind.BODY) or token.is_symbol(";"):
            break
        if not opened and (token.kind is TokenKind.STRING or token.is_symbol("=")):
            break  # no part of a value: probably a comma is missing, which the caller reports
        if token.is_symbol("(", "["):
            opened.append(token)
        elif opened and token.is_symbol(")", "]"):
            opened.pop()
        cursor.next()
    if cursor.peek() is first:
        raise cursor.unexpected(f"a value for {of} (in quotes unless it is only words and numbers)")
    return cursor.text_since(first)
