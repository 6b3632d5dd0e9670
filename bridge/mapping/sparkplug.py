"""Sparkplug B: decodes readings of edge nodes and their devices, with the state of births that this needs.

Data messages identify metrics by aliases, which the last birth certificate declares. Births and data are sent with
QoS 0 and may be lost, so this also finds the edge nodes that need a rebirth request. Section numbers are those of the
Sparkplug 3.0 specification. Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

import msgspec

from bridge.mapping import sparkplug_payload
from bridge.mapping.payload import MAX_PAYLOAD, MAX_ROWS
from bridge.mapping.sparkplug_certificates import NO_CERTIFICATE, BirthCertificate, DeclaredMetric, MetricReader
from bridge.mapping.unmappable import NoReading, Unmappable, preview
from bridge.reasons import Reason

NAMESPACE = "spBv1.0"
"""The first level of every topic (4.1)."""

MESSAGE_TYPES = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")
"""The types that are decoded. A subscription to all topics also brings commands, the bridge's own among them, which
carry no readings."""

MEMBERS = (
    *("group", "node", "device", "type", "seq", "online"),
    *("metric", "value", "datatype", "timestamp", "quality", "historical", "transient"),
)
"""Members of each object in a decoded message."""

KEY_PREFIX = "sparkplug:"
"""Prefix of every key of ``changes``."""

DEFAULT_MAX_BYTES = 32 * 1024 * 1024
"""Memory for certificates unless the caller says otherwise."""

CERTIFICATE_SIZE = 1_000
"""Bytes that a certificate takes in memory without its metrics; with the edge node, if it is the only one."""

METRIC_SIZE = 200
"""Bytes that a metric of a certificate takes in memory without its name."""

MAX_ID = 1024
"""Characters of a group, edge node or device id."""

REBIRTH_INTERVAL = 10.0
"""Seconds between rebirth requests to the same edge node."""

MAX_REBIRTHS = 1_000
"""Edge nodes that get a rebirth request within ``REBIRTH_INTERVAL``, and that wait for one: invented names must not
make the bridge flood the broker."""

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
    """What identifies an NBIRTH among those of an edge node."""

    timestamp: int | None
    bd_seq: int | None
    seq: int | None


class _StoredCertificate(msgspec.Struct):
    """A certificate as stored on disk; ``birth`` is set for an edge node, not for devices."""

    metrics: list[DeclaredMetric]
    since: int | None = None
    birth: _Birth | None = None


@dataclass(slots=True)
class _Node:
    """An edge node that is online as far as the bridge knows."""

    birth: _Birth | None = None
    """None: only births of its devices were received."""
    certificates: dict[str, BirthCertificate] = field(default_factory=dict)
    """By device id; the empty id is the edge node itself."""
    seq: int | None = None
    """The last seq; None: not known."""
    seq_at: int | None = None
    """The timestamp of the payload with that seq."""

    def follows(self, seq: int | None, timestamp: int | None) -> bool:
        """Whether no message is missing before this one: it is the next one, or a redelivered or late earlier one."""
        if seq is None or seq >= _SEQS:  # no gap can be detected here, nor at the next message
            self.seq = None
            return True
        ahead = None if self.seq is None else (seq - self.seq) % _SEQS
        if ahead not in (None, 1) and self._is_earlier(ahead, timestamp):
            return True
        self.seq, self.seq_at = seq, timestamp
        return ahead in (None, 1)

    def _is_earlier(self, ahead: int, timestamp: int | None) -> bool:
        if timestamp is None or self.seq_at is None or timestamp == self.seq_at:
            # Only seq decides: more than half a round ahead means behind.
            return ahead == 0 or ahead > _SEQS // 2
        return timestamp < self.seq_at


_NodeId = tuple[str, str]  # group, edge node


class _Topic(msgspec.Struct, frozen=True):
    node_id: _NodeId
    type: str
    device: str
    """Empty: the message is from the edge node itself."""


def require_protobuf() -> None:
    """Check that payloads can be decoded.

    Raises:
        MissingExtra: protobuf isn't installed.
    """
    sparkplug_payload.message_class()


class Sparkplug:
    """Decodes messages of all edge nodes and devices, and remembers their birth certificates.

    Memory is bounded. What would exceed it isn't remembered, and what is remembered stays: forgetting an edge node that
    is online would only make it send its birth again, in place of the next one.

    Args:
        stored: texts by key, as ``changes`` gave them in earlier runs. Other keys and invalid texts are ignored.
        max_bytes: memory for certificates.

    Raises:
        MissingExtra: protobuf isn't installed.
    """

    def __init__(self, stored: Mapping[str, str] | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        require_protobuf()
        self.bytes = 0
        """Memory that the certificates take."""
        self.refused = 0
        """Certificates that were not remembered for lack of memory."""
        self._max_bytes = max_bytes
        self._last_refused = 0  # size
        self._nodes: dict[_NodeId, _Node] = {}
        self._changed: dict[str, None] = {}
        self._need_rebirth: dict[_NodeId, None] = {}
        self._rebirth_requested_at: dict[_NodeId, float] = {}
        for key, text in (stored or {}).items():
            self._restore(key, text)
        # What didn't fit is deleted from the store, too.
        self._changed = {key: None for key in self._changed if self._find(key) is None}

    @property
    def is_full(self) -> bool:
        """Whether the last certificate that was refused still doesn't fit."""
        return self.refused > 0 and self.bytes + self._last_refused > self._max_bytes

    # --- decoding -------------------------------------------------------------------------------------------

    def decode(self, topic: str, payload: bytes, *, is_replay: bool = False) -> list[dict[str, Any]]:
        """An object for each metric of the message, in order; for a death one object with ``online`` False.

        ``value`` is JSON-like (bytes are base64) or None; ``timestamp`` is in milliseconds since the epoch, the
        metric's, else the payload's; ``quality`` is None if the metric has none.

        A birth or death changes the state even if a value in the message can't be decoded. A replay doesn't change the
        state: it comes long after the message, so its birth or death may be outdated. A known certificate is used for
        replayed data only if the data is newer.

        Raises:
            Unmappable: UNDECODABLE, UNKNOWN_ALIAS (also for a metric whose datatype isn't known), TOO_LARGE or EMPTY.
            NoReading: a command or a host's state.
        """
        parsed = _parse_topic(topic)
        if not payload:
            raise Unmappable(Reason.EMPTY, "the payload is empty")
        if len(payload) > MAX_PAYLOAD:
            detail = f"the payload has {len(payload)} bytes, at most {MAX_PAYLOAD} are allowed"
            raise Unmappable(Reason.TOO_LARGE, detail)
        message = sparkplug_payload.parse(payload)
        if len(message.metrics) > MAX_ROWS:
            raise Unmappable(
                Reason.TOO_LARGE, f"the message has {len(message.metrics)} metrics, at most {MAX_ROWS} are allowed"
            )
        if message.body:
            raise Unmappable(
                Reason.UNDECODABLE, "the payload has a body in a proprietary encoding (perhaps compressed metrics)"
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
        own = BirthCertificate.of(message.metrics, timestamp) if parsed.type.endswith("BIRTH") else None
        if not is_replay:
            self._update_state(parsed, message, own)
        if not common["online"]:
            return [common | _NO_METRIC | {"timestamp": timestamp}]
        if not message.metrics:
            raise Unmappable(Reason.EMPTY, "the payload has no metrics")
        certificate = own or self._applicable(parsed, timestamp, is_replay=is_replay) or NO_CERTIFICATE
        reader = MetricReader(certificate, timestamp)
        try:
            return [{**common, **reader.read(metric)} for metric in message.metrics]
        finally:
            if reader.needs_birth and not is_replay:
                self._want_rebirth(parsed.node_id, is_known=certificate is not NO_CERTIFICATE)

    def _applicable(self, topic: _Topic, sent_at: int | None, *, is_replay: bool) -> BirthCertificate | None:
        """The certificate of the edge node or device, if it applies to a message of that time."""
        node = self._nodes.get(topic.node_id)
        certificate = node.certificates.get(topic.device) if node is not None else None
        if certificate is None or _is_older(sent_at, certificate.since):
            return None
        if is_replay and not _is_older(certificate.since, sent_at):
            return None  # also in the same millisecond: which came first isn't known
        return certificate

    # --- births and deaths ----------------------------------------------------------------------------------

    def _update_state(self, topic: _Topic, message: Any, certificate: BirthCertificate | None) -> None:
        """Update what is known about the edge node; ``certificate`` is the one that a birth message declares."""
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

    def _born(self, node_id: _NodeId, certificate: BirthCertificate, birth: _Birth) -> None:
        self._need_rebirth.pop(node_id, None)
        node = self._nodes.get(node_id) or _Node()
        own = node.certificates.get("")
        if own and own.metrics == certificate.metrics and birth == node.birth and birth.timestamp is not None:
            return  # redelivered by the broker: births of devices since then are still valid
        for device in [device for device in node.certificates if device]:  # a new session: devices are born again
            self._set_certificate(node_id, node, device, None)
        node.birth, node.seq, node.seq_at = birth, birth.seq, birth.timestamp
        self._set_certificate(node_id, node, "", certificate)

    def _died(self, node_id: _NodeId, bd_seq: int | None) -> None:
        node = self._nodes.get(node_id)
        if node is None:
            return
        birth_bd_seq = node.birth.bd_seq if node.birth is not None else None
        if bd_seq is not None and birth_bd_seq is not None and bd_seq != birth_bd_seq:
            return  # the will of an earlier session (6.4.25): the edge node has been born again since
        self._need_rebirth.pop(node_id, None)
        for device in list(node.certificates):
            self._set_certificate(node_id, node, device, None)

    def _device_born(self, topic: _Topic, certificate: BirthCertificate) -> None:
        node = self._nodes.get(topic.node_id) or _Node()
        if node.birth is not None and _is_older(certificate.since, node.birth.timestamp):
            # From an ended session, or the node's clock was set back: only a new birth can show which.
            self._want_rebirth(topic.node_id, is_known=True)
            return
        self._set_certificate(topic.node_id, node, topic.device, certificate)

    def _device_died(self, topic: _Topic) -> None:
        node = self._nodes.get(topic.node_id)
        if node is not None:
            self._set_certificate(topic.node_id, node, topic.device, None)

    def _check_order(self, topic: _Topic, seq: int | None, timestamp: int | None) -> None:
        node = self._nodes.get(topic.node_id)
        is_known = node is not None and node.birth is not None
        if node is not None and node.birth is not None:
            is_complete = node.follows(seq, timestamp)
        else:
            is_complete = topic.type == "DDEATH"  # its row needs no certificate
        if not is_complete:
            self._want_rebirth(topic.node_id, is_known=is_known)

    # --- stored state ---------------------------------------------------------------------------------------

    def changes(self) -> dict[str, str]:
        """Texts to store by key, changed since the last call; an empty text deletes its key.

        Call it after each batch of messages and store the result with the batch.
        """
        changed, self._changed = self._changed, {}
        return {key: self._text(key) for key in changed}

    def _text(self, key: str) -> str:
        found = self._find(key)
        if found is None:
            return ""
        certificate, birth = found
        stored = _StoredCertificate(list(certificate.metrics), certificate.since, birth)
        return msgspec.json.encode(stored).decode()

    def _find(self, key: str) -> tuple[BirthCertificate, _Birth | None] | None:
        """What is remembered under a key: a certificate, and the birth if it is an edge node's own."""
        group, name, device = _parse_key(key)
        node = self._nodes.get((group, name))
        certificate = node.certificates.get(device) if node is not None else None
        if node is None or certificate is None:
            return None
        return certificate, None if device else node.birth

    def _restore(self, key: str, text: str) -> None:
        if not key.startswith(KEY_PREFIX) or key.count("/") not in (1, 2):
            return
        try:
            stored = msgspec.json.decode(text, type=_StoredCertificate)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return
        group, name, device = _parse_key(key)
        node = self._nodes.get((group, name)) or _Node()
        if not device:
            node.birth = stored.birth
        self._set_certificate((group, name), node, device, BirthCertificate(tuple(stored.metrics), stored.since))

    def _set_certificate(
        self, node_id: _NodeId, node: _Node, device: str, certificate: BirthCertificate | None
    ) -> None:
        """Set the certificate of a device, or of the edge node for an empty id; None removes it.

        One that doesn't fit into the memory is not set, and the earlier one is removed: its aliases are outdated.
        """
        key = _key(node_id, device)
        earlier = node.certificates.pop(device, None)
        self.bytes -= 0 if earlier is None else _size(earlier)
        if certificate is not None and self.bytes + _size(certificate) > self._max_bytes:
            self.refused += 1
            self._last_refused = _size(certificate)
            certificate = None
        if certificate is not None:
            if earlier is not None and earlier.metrics == certificate.metrics:
                certificate.since = earlier.since  # the same aliases were already valid then
            node.certificates[device] = certificate
            self.bytes += _size(certificate)
        if node.certificates:
            self._nodes[node_id] = node
        else:
            self._nodes.pop(node_id, None)
        # An edge node's text also has its birth, which changes even if its metrics don't.
        if not device or certificate != earlier:
            self._changed[key] = None

    # --- rebirths -------------------------------------------------------------------------------------------

    def _want_rebirth(self, node_id: _NodeId, *, is_known: bool) -> None:
        """``is_known``: a birth would only replace one that is remembered."""
        if self.is_full and not is_known:
            return  # the birth would be refused, and requested again with each data message
        if len(self._need_rebirth) < MAX_REBIRTHS:
            self._need_rebirth[node_id] = None

    def rebirths(self, now: float, time_ms: int) -> list[tuple[str, bytes]]:
        """Topics and payloads of the rebirth requests (NCMD) to publish, for edge nodes that need one.

        An edge node gets at most one request per ``REBIRTH_INTERVAL``, and another only if its messages need it again.
        ``now`` is monotonic seconds, ``time_ms`` milliseconds since the epoch: an NCMD must have a timestamp (6.4.23).
        """
        if not self._need_rebirth:
            return []
        requested_at = self._rebirth_requested_at
        while requested_at:  # in the order of the requests, oldest first
            oldest = next(iter(requested_at))
            if now - requested_at[oldest] < REBIRTH_INTERVAL:
                break
            del requested_at[oldest]
        due = [node_id for node_id in self._need_rebirth if node_id not in requested_at]
        due = due[: MAX_REBIRTHS - len(requested_at)]
        for node_id in due:
            del self._need_rebirth[node_id]
            requested_at[node_id] = now
        command = sparkplug_payload.rebirth_command(time_ms) if due else b""
        return [(f"{NAMESPACE}/{group}/NCMD/{node}", command) for group, node in due]


def _parse_topic(topic: str) -> _Topic:
    levels = topic.split("/")
    if levels[0] != NAMESPACE or len(levels) not in (3, 4, 5):
        raise Unmappable(Reason.UNDECODABLE, f"a Sparkplug topic is {NAMESPACE}/GROUP/TYPE/NODE or …/NODE/DEVICE")
    if levels[1] == "STATE" or levels[2] in ("NCMD", "DCMD"):
        raise NoReading("STATE, NCMD and DCMD messages carry no readings")
    type_ = levels[2]
    if type_ not in MESSAGE_TYPES or len(levels) != (4 if type_.startswith("N") else 5):
        raise Unmappable(
            Reason.UNDECODABLE, f"{preview(type_)} with {len(levels)} topic levels is not a Sparkplug message type"
        )
    ids = (levels[1], *levels[3:])
    if not all(ids) or any(set(id_) & set("+#\0") for id_ in ids):
        raise Unmappable(Reason.UNDECODABLE, "an id in the Sparkplug topic is empty or contains +, # or NUL")
    if any(len(id_) > MAX_ID for id_ in ids):
        raise Unmappable(Reason.TOO_LARGE, f"an id in the Sparkplug topic has more than {MAX_ID} characters")
    try:
        topic.encode()
    except UnicodeEncodeError as exc:
        raise Unmappable(Reason.UNDECODABLE, "the Sparkplug topic is not UTF-8") from exc
    return _Topic((levels[1], levels[3]), type_, levels[4] if len(levels) == 5 else "")


def _size(certificate: BirthCertificate) -> int:
    """About how many bytes the certificate takes in memory."""
    return CERTIFICATE_SIZE + sum(METRIC_SIZE + getsizeof(name) for name, _, _ in certificate.metrics)


def _key(node_id: _NodeId, device: str) -> str:
    return f"{KEY_PREFIX}{'/'.join((*node_id, device) if device else node_id)}"


def _parse_key(key: str) -> tuple[str, str, str]:
    group, _, rest = key.removeprefix(KEY_PREFIX).partition("/")
    name, _, device = rest.partition("/")
    return group, name, device


def _bd_seq(metrics: Iterable[Any]) -> int | None:
    """The number that identifies an edge node's session in its birth and death (6.4.19, 6.4.25)."""
    for metric in metrics:
        oneof = metric.WhichOneof("value")
        if metric.name == "bdSeq" and oneof in ("int_value", "long_value"):
            number: int = getattr(metric, oneof)
            return number
    return None


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _is_older(timestamp: int | None, since: int | None) -> bool:
    return timestamp is not None and since is not None and timestamp < since
