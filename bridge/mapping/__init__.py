"""From an MQTT message to rows of the worker's input stream. No I/O, no clock, no thread."""

from bridge.mapping.checks import Problem, check, doubts
from bridge.mapping.fields import FieldSpec
from bridge.mapping.formats import FormatOptions
from bridge.mapping.route import Example, Route
from bridge.mapping.routes import Mapping

__all__ = ["Example", "FieldSpec", "FormatOptions", "Mapping", "Problem", "Route", "check", "doubts"]
