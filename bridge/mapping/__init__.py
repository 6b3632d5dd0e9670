"""Maps MQTT messages to rows of the worker's input streams. Pure: no I/O, no clock, no thread."""

from bridge.mapping.checks import Problem, check, find_warnings
from bridge.mapping.fields import FieldSpec
from bridge.mapping.formats import FormatOptions
from bridge.mapping.mapper import Mapper
from bridge.mapping.route import Example, Route

__all__ = ["Example", "FieldSpec", "FormatOptions", "Mapper", "Problem", "Route", "check", "find_warnings"]
