"""What an edge node or device declared at birth, and metrics read by it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bridge.mapping.sparkplug_values import DATATYPES, Values, datatype_of, quality_of
from bridge.mapping.unmappable import Unmappable, shown
from bridge.reasons import Reason

Declared = tuple[str, int, int | None]
"""A metric's name, datatype (0: not said) and alias."""


@dataclass(slots=True)
class Certificate:
    """What an edge node, or one of its devices, declared at birth."""

    metrics: tuple[Declared, ...]
    since: int | None
    """Milliseconds. What was sent before meant its aliases by an earlier certificate."""
    aliases: dict[int, Declared] = field(init=False)
    datatypes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.aliases, self.datatypes = {}, {}
        doubtful = set()
        for declared in self.metrics:
            name, datatype, alias = declared
            if self.datatypes.setdefault(name, datatype) != datatype:
                self.datatypes[name] = 0
            if alias is not None and self.aliases.setdefault(alias, declared) != declared:
                doubtful.add(alias)
        for alias in doubtful:
            del self.aliases[alias]

    @classmethod
    def of(cls, metrics: Iterable[Any], since: int | None) -> Certificate:
        """What a birth's metrics declare."""
        named = (metric for metric in metrics if metric.name)
        declared = ((m.name, datatype_of(m), m.alias if m.HasField("alias") else None) for m in named)
        return cls(tuple(declared), since)


NONE = Certificate((), None)
"""Where none is known."""


@dataclass(slots=True)
class CertificateReader:
    """Reads the metrics of one message by the certificate that explains them."""

    certificate: Certificate
    sent_at: int | None
    values: Values = field(default_factory=Values)
    is_doubtful: bool = False
    """Whether a metric asks for a certificate that isn't known, or contradicts it."""

    def read(self, metric: Any) -> dict[str, Any]:
        """The members of a row that are the metric's own.

        Raises:
            Unmappable: as ``Sparkplug.decode``.
        """
        name, datatype = self._declared(metric)
        try:
            value = self.values.read(metric, datatype)
        except Unmappable as exc:
            # The datatype may be that of the certificate, and no longer true.
            self.is_doubtful |= exc.reason is Reason.UNDECODABLE and not metric.datatype
            raise Unmappable(exc.reason, f"metric {shown(name)}: {exc}") from None
        return {
            "metric": name,
            "value": value,
            "datatype": DATATYPES.get(datatype),
            "timestamp": metric.timestamp if metric.HasField("timestamp") else self.sent_at,
            "quality": quality_of(metric),
            "historical": metric.is_historical,
            "transient": metric.is_transient,
        }

    def _declared(self, metric: Any) -> tuple[str, int]:
        """The metric's name and datatype, from itself or from the certificate."""
        known = self.certificate.aliases.get(metric.alias) if metric.HasField("alias") else None
        if metric.name:
            self.is_doubtful |= known is not None and known[0] != metric.name
            datatype = metric.datatype or self.certificate.datatypes.get(metric.name) or datatype_of(metric)
            if not datatype and metric.WhichOneof("value") is not None and not metric.is_null:
                raise self._unknown(
                    f"metric {shown(metric.name)} names no datatype, and no birth certificate known here does"
                )
            return metric.name, datatype
        if not metric.HasField("alias"):
            raise Unmappable(Reason.UNDECODABLE, "a metric has neither name nor alias")
        if known is None:
            raise self._unknown(f"no birth certificate known here names alias {metric.alias} of this message")
        name, declared, _ = known
        if metric.datatype and declared and metric.datatype != declared:
            raise self._unknown(
                f"alias {metric.alias} was declared as {shown(name)} of datatype {declared} and now has "
                f"{metric.datatype}: it seems to mean another metric"
            )
        return name, metric.datatype or declared or datatype_of(metric)

    def _unknown(self, detail: str) -> Unmappable:
        self.is_doubtful = True
        return Unmappable(Reason.UNKNOWN_ALIAS, detail)
