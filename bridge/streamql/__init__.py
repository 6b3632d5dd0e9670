"""Stream worker definitions (QL version 2): text to syntax tree, and the GDN streams in it. Pure."""

from bridge.streamql.parser import parse
from bridge.streamql.source import StreamQLError
from bridge.streamql.streams import InputStream, input_streams
from bridge.streamql.syntax import AttributeType, Scope, Worker

__all__ = ["AttributeType", "InputStream", "Scope", "StreamQLError", "Worker", "input_streams", "parse"]
