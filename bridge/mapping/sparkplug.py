"""Sparkplug B: readings from edge nodes and their devices, and what must be remembered of births to read them.

Data names its metrics by aliases that only the last birth certificate explains. Births and data come with QoS 0 and may
be lost; so this also tells when an edge node should be asked for its births again. Facts are those of the Sparkplug 3.0
specification. Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.mapping import sparkplug_payload
from bridge.mapping.payload import MAX_PAYLOAD, MAX_ROWS
from bridge.mapping.sparkplug_certificates import NONE, Certificate, CertificateReader, Declared
from bridge.mapping.unmappable import NoReading, Unmappable, shown
from bridge.reasons import Reason

NAMESPACE = "spBv1.0"
"""The first level of every topic (4.1)."""

TYPES = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")
"""What is read. A subscription of everything would also bring commands, our own among them, and they carry no
readings."""

MEMBERS = (
    *("group", "node", "device", "type", "seq", "online"),
    *("metric", "value", "datatype", "timestamp", "quality", "historical", "transient"),
)
"""Of what a message is decoded to."""

KEY_PREFIX = "sparkplug:"
"""Before every key of ``changes``."""

MAX_NODES = 10_000
"""Edge nodes remembered."""

MAX_METRICS = 100_000
"""Metrics remembered over all edge nodes; each device counts as one more."""

MAX_CHARACTERS = 16 * 1024 * 1024
"""Characters of names remembered over all edge nodes."""

MAX_ID = 1024
"""Characters of a group, edge node or device id."""

REBIRTH_INTERVAL = 10.0
"""Seconds until an edge node is asked again for its births."""

MAX_REBIRTHS = 1_000
"""Edge nodes asked within ``REBIRTH_INTERVAL``, and as many that wait for it: made-up names are no way to make the
bridge flood the broker."""

_NO_METRIC = {
    "metric": None,
    "value": None,
    "datatype": None,
    "quality": None,
    "historical": False,
    "transient": False,
}

_SEQS = 256  # seq runs from 0 to 255 (6.4.5)


class _Birth(msgspec.Struct, frozen=True):
    """What tells one NBIRTH of an edge node from the next."""

    timestamp: int | None
    bd_seq: int | None
    seq: int | None


class _Remembered(msgspec.Struct):
    """What is written down of one certificate; ``birth`` is an edge node's own."""

    metrics: list[Declared]
    since: int | None = None
    birth: _Birth | None = None


@dataclass(slots=True)
class _Node:
    """An edge node that lives, as far as is known."""

    birth: _Birth | None = None
    """None: only devices of it were seen to be born."""
    certificates: dict[str, Certificate] = field(default_factory=dict)
    """By device id; empty text: the edge node's own."""
    seq: int | None = None
    """The last one; None: not known."""
    seq_at: int | None = None
    """Its payload's timestamp."""

    def follows(self, seq: int | None, timestamp: int | None) -> bool:
        """Whether nothing is missing between the last message and this one, which came before or comes next."""
        if seq is None or seq >= _SEQS:
            self.seq = None
            return True
        ahead = None if self.seq is None else (seq - self.seq) % _SEQS
        if ahead not in (None, 1) and self._came_before(ahead, timestamp):
            return True
        self.seq, self.seq_at = seq, timestamp
        return ahead in (None, 1)

    def _came_before(self, ahead: int, timestamp: int | None) -> bool:
        if timestamp is None or self.seq_at is None or timestamp == self.seq_at:
            return ahead == 0 or ahead > _SEQS // 2
        return timestamp < self.seq_at


_NodeId = tuple[str, str]  # group, edge node


class _Topic(msgspec.Struct, frozen=True):
    node_id: _NodeId
    type: str
    device: str
    """Empty: the message is of the edge node itself."""


def need_protobuf() -> None:
    """Make sure that payloads can be read.

    Raises:
        MissingExtra: protobuf isn't installed.
    """
    sparkplug_payload.message_class()


class Sparkplug:
    """Decodes messages of all edge nodes and devices, and remembers what their births declared.

    Bounded: what was born longest ago is forgotten first, and asked for again when data of it comes.

    Args:
        remembered: texts by key, as ``changes`` gave them in earlier runs. Others, and rubbish, are ignored.

    Raises:
        MissingExtra: protobuf isn't installed.
    """

    def __init__(self, remembered: Mapping[str, str] | None = None) -> None:
        need_protobuf()
        self._nodes: dict[_NodeId, _Node] = {}  # by the last birth, the longest ago first
        self._metrics = 0
        self._characters = 0
        self._changed: dict[str, None] = {}
        self._wanted: dict[_NodeId, None] = {}
        self._asked: dict[_NodeId, float] = {}
        for key, text in (remembered or {}).items():
            self._remember(key, text)
        self._changed.clear()
        self._forget_the_oldest()

    # --- reading --------------------------------------------------------------------------------------------

    def decode(self, topic: str, payload: bytes, *, is_replay: bool = False) -> list[dict[str, Any]]:
        """A dict per metric of the message, in its order; for a death one that says ``online`` is False.

        ``value`` is JSON-like (bytes are base64) or None; ``timestamp`` is in milliseconds since the epoch, the
        metric's or else the payload's; ``quality`` is None where the metric says none.

        What a birth declares and a death ends is taken in even if a value in the message can't be read. Not so in a
        replay, which comes long after the message: an old birth or death says nothing of now. What is remembered
        explains replayed data only if that is known to be younger.

        Raises:
            Unmappable: UNDECODABLE, UNKNOWN_ALIAS (also for a name without a datatype that no birth declared),
                TOO_LARGE or EMPTY.
            NoReading: a command or a host's state.
        """
        parsed = _parse_topic(topic)
        if not payload:
            raise Unmappable(Reason.EMPTY, "the payload is empty")
        if len(payload) > MAX_PAYLOAD:
            raise Unmappable(Reason.TOO_LARGE, f"the payload has {len(payload)} bytes, at most {MAX_PAYLOAD} are taken")
        message = sparkplug_payload.parse(payload)
        if len(message.metrics) > MAX_ROWS:
            raise Unmappable(
                Reason.TOO_LARGE, f"the message has {len(message.metrics)} metrics, at most {MAX_ROWS} are taken"
            )
        if message.body:
            raise Unmappable(
                Reason.UNDECODABLE, "the payload has a body of its own making (compressed, perhaps) beside its metrics"
            )
        timestamp, seq = _optional(message, "timestamp"), _optional(message, "seq")
        common = {
            "group": parsed.node_id[0],
            "node": parsed.node_id[1],
            "device": parsed.device or None,
            "type": parsed.type,
            "seq": seq,
            "online": not parsed.type.endswith("DEATH"),
        }
        own = Certificate.of(message.metrics, timestamp) if parsed.type.endswith("BIRTH") else None
        if not is_replay:
            self._take_in(parsed, message, own)
        if not common["online"]:
            return [common | _NO_METRIC | {"timestamp": timestamp}]
        if not message.metrics:
            raise Unmappable(Reason.EMPTY, "the payload has no metrics")
        reader = CertificateReader(own or self._known(parsed, timestamp, is_replay=is_replay) or NONE, timestamp)
        try:
            return [{**common, **reader.read(metric)} for metric in message.metrics]
        finally:
            if reader.is_doubtful and not is_replay:
                self._want(parsed.node_id)

    def _known(self, topic: _Topic, sent_at: int | None, *, is_replay: bool) -> Certificate | None:
        """What is remembered of the edge node or device, if it explains a message of that time."""
        node = self._nodes.get(topic.node_id)
        certificate = node.certificates.get(topic.device) if node is not None else None
        if certificate is None or _is_older(sent_at, certificate.since):
            return None
        if is_replay and not _is_older(certificate.since, sent_at):
            return None  # nor in the same millisecond: the order in which they came is lost
        return certificate

    # --- births and deaths ----------------------------------------------------------------------------------

    def _take_in(self, topic: _Topic, message: Any, certificate: Certificate | None) -> None:
        """Remember what a message says of its edge node; ``certificate`` is a birth's."""
        timestamp, seq = _optional(message, "timestamp"), _optional(message, "seq")
        if topic.type == "NDEATH":
            self._died(topic.node_id, _bd_seq(message.metrics))
        elif topic.type == "NBIRTH" and certificate is not None:
            self._born(topic.node_id, certificate, _Birth(timestamp, _bd_seq(message.metrics), seq))
        else:
            self._check_order(topic, seq, timestamp)
            if certificate is not None:
                self._device_born(topic, certificate)
            elif topic.type == "DDEATH":
                self._device_died(topic)

    def _born(self, node_id: _NodeId, certificate: Certificate, birth: _Birth) -> None:
        self._wanted.pop(node_id, None)
        node = self._nodes.pop(node_id, None) or _Node()
        own = node.certificates.get("")
        self._nodes[node_id] = node
        if own and own.metrics == certificate.metrics and birth == node.birth and birth.timestamp is not None:
            return  # handed over again by the broker: what the devices declared since holds
        for device in [device for device in node.certificates if device]:
            self._put(node_id, node, device, None)
        node.birth, node.seq, node.seq_at = birth, birth.seq, birth.timestamp
        self._put(node_id, node, "", certificate)
        self._forget_the_oldest()

    def _died(self, node_id: _NodeId, bd_seq: int | None) -> None:
        node = self._nodes.get(node_id)
        if node is None:
            return
        born_with = node.birth.bd_seq if node.birth is not None else None
        if bd_seq is not None and born_with is not None and bd_seq != born_with:
            return  # a will of an earlier session (6.4.25): the edge node has come back since
        self._wanted.pop(node_id, None)
        self._forget(node_id)

    def _device_born(self, topic: _Topic, certificate: Certificate) -> None:
        node = self._nodes.pop(topic.node_id, None) or _Node()
        self._nodes[topic.node_id] = node
        if node.birth is not None and _is_older(certificate.since, node.birth.timestamp):
            self._want(topic.node_id)  # of a session that has ended, or the clock was set: a new birth will tell
            return
        self._put(topic.node_id, node, topic.device, certificate)
        self._forget_the_oldest()

    def _device_died(self, topic: _Topic) -> None:
        node = self._nodes.get(topic.node_id)
        if node is not None:
            self._put(topic.node_id, node, topic.device, None)
            if not node.certificates:
                del self._nodes[topic.node_id]

    def _check_order(self, topic: _Topic, seq: int | None, timestamp: int | None) -> None:
        node = self._nodes.get(topic.node_id)
        if node is not None and node.birth is not None:
            is_complete = node.follows(seq, timestamp)
        else:
            is_complete = topic.type == "DDEATH"
        if not is_complete:
            self._want(topic.node_id)

    # --- what is remembered ---------------------------------------------------------------------------------

    def changes(self) -> dict[str, str]:
        """Text to keep by key, since the last call; empty text: forget the key.

        To be taken after each batch of messages, and to be stored with it.
        """
        changed, self._changed = self._changed, {}
        return {key: self._text(key) for key in changed}

    def _text(self, key: str) -> str:
        group, name, device = _parse_key(key)
        node = self._nodes.get((group, name))
        certificate = node.certificates.get(device) if node is not None else None
        if node is None or certificate is None:
            return ""
        birth = None if device else node.birth
        remembered = _Remembered(list(certificate.metrics), certificate.since, birth)
        return msgspec.json.encode(remembered).decode()

    def _remember(self, key: str, text: str) -> None:
        if not key.startswith(KEY_PREFIX) or key.count("/") not in (1, 2):
            return
        try:
            found = msgspec.json.decode(text, type=_Remembered)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return
        group, name, device = _parse_key(key)
        node = self._nodes.setdefault((group, name), _Node())
        if not device:
            node.birth = found.birth
        self._put((group, name), node, device, Certificate(tuple(found.metrics), found.since))

    def _put(self, node_id: _NodeId, node: _Node, device: str, certificate: Certificate | None) -> None:
        """Take a certificate in, or away with None."""
        key = _key(node_id, device)
        earlier = node.certificates.pop(device, None)
        if earlier is not None:
            self._count(key, earlier, -1)
        if certificate is not None:
            if earlier is not None and earlier.metrics == certificate.metrics:
                certificate.since = earlier.since  # its aliases mean what they meant
            node.certificates[device] = certificate
            self._count(key, certificate, 1)
        if not device or certificate != earlier:
            self._changed[key] = None

    def _count(self, key: str, certificate: Certificate, sign: int) -> None:
        self._metrics += sign * (len(certificate.metrics) + 1)
        self._characters += sign * (len(key) + sum(len(name) for name, _, _ in certificate.metrics))

    def _forget(self, node_id: _NodeId) -> None:
        node = self._nodes.pop(node_id)
        for device in list(node.certificates):
            self._put(node_id, node, device, None)

    def _forget_the_oldest(self) -> None:
        while len(self._nodes) > MAX_NODES or self._metrics > MAX_METRICS or self._characters > MAX_CHARACTERS:
            self._forget(next(iter(self._nodes)))

    # --- rebirths -------------------------------------------------------------------------------------------

    def _want(self, node_id: _NodeId) -> None:
        if len(self._wanted) < MAX_REBIRTHS:
            self._wanted[node_id] = None

    def rebirths(self, now: float, time_ms: int) -> list[tuple[str, bytes]]:
        """Topics and payloads of the NCMDs to publish: to edge nodes whose births are needed since the last call.

        An edge node is asked at most every ``REBIRTH_INTERVAL``, and again only if its messages need it again.
        ``now`` is monotonic seconds, ``time_ms`` milliseconds since the epoch: an NCMD must carry a time (6.4.23).
        """
        if not self._wanted:
            return []
        while self._asked:
            oldest = next(iter(self._asked))
            if now - self._asked[oldest] < REBIRTH_INTERVAL:
                break
            del self._asked[oldest]
        asked = [node_id for node_id in self._wanted if node_id not in self._asked]
        asked = asked[: MAX_REBIRTHS - len(self._asked)]
        for node_id in asked:
            del self._wanted[node_id]
            self._asked[node_id] = now
        command = sparkplug_payload.rebirth_command(time_ms) if asked else b""
        return [(f"{NAMESPACE}/{group}/NCMD/{node}", command) for group, node in asked]


def _parse_topic(topic: str) -> _Topic:
    levels = topic.split("/")
    if levels[0] != NAMESPACE or len(levels) not in (3, 4, 5):
        raise Unmappable(Reason.UNDECODABLE, f"a Sparkplug topic is {NAMESPACE}/GROUP/TYPE/NODE or …/NODE/DEVICE")
    if levels[1] == "STATE" or levels[2] in ("NCMD", "DCMD"):
        raise NoReading("STATE, NCMD and DCMD messages carry no readings")
    type_ = levels[2]
    if type_ not in TYPES or len(levels) != (4 if type_.startswith("N") else 5):
        raise Unmappable(
            Reason.UNDECODABLE, f"{shown(type_)} with {len(levels)} topic levels is no Sparkplug message type"
        )
    ids = (levels[1], *levels[3:])
    if not all(ids) or any(set(id_) & set("+#\0") for id_ in ids):
        raise Unmappable(Reason.UNDECODABLE, "an id in the Sparkplug topic is empty, or holds +, # or NUL")
    if any(len(id_) > MAX_ID for id_ in ids):
        raise Unmappable(Reason.TOO_LARGE, f"an id in the Sparkplug topic has over {MAX_ID} characters")
    try:
        topic.encode()
    except UnicodeEncodeError as exc:
        raise Unmappable(Reason.UNDECODABLE, "the Sparkplug topic is not UTF-8") from exc
    return _Topic((levels[1], levels[3]), type_, levels[4] if len(levels) == 5 else "")


def _key(node_id: _NodeId, device: str) -> str:
    return f"{KEY_PREFIX}{'/'.join((*node_id, device) if device else node_id)}"


def _parse_key(key: str) -> tuple[str, str, str]:
    group, _, rest = key.removeprefix(KEY_PREFIX).partition("/")
    name, _, device = rest.partition("/")
    return group, name, device


def _bd_seq(metrics: Iterable[Any]) -> int | None:
    """The number that an edge node's birth and death have in common (6.4.19, 6.4.25)."""
    for metric in metrics:
        kind = metric.WhichOneof("value")
        if metric.name == "bdSeq" and kind in ("int_value", "long_value"):
            number: int = getattr(metric, kind)
            return number
    return None


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _is_older(timestamp: int | None, since: int | None) -> bool:
    return timestamp is not None and since is not None and timestamp < since
