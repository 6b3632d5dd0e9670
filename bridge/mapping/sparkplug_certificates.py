"""Birth certificates: what an edge node or device declared at birth, and metrics read with its help. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bridge.mapping.sparkplug_values import DATATYPES, ValueReader, datatype_of, quality_of
from bridge.mapping.unmappable import Unmappable, preview
from bridge.reasons import Reason

DeclaredMetric = tuple[str, int, int | None]
"""A metric's name, datatype (0: not given) and alias."""


@dataclass(slots=True)
class BirthCertificate:
    """The metrics that an edge node, or one of its devices, declared at birth."""

    metrics: tuple[DeclaredMetric, ...]
    since: int | None
    """Milliseconds since the epoch. Aliases in earlier messages refer to an earlier certificate."""
    aliases: dict[int, DeclaredMetric] = field(init=False)
    datatypes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        # A name with two datatypes gets none, and an alias of two metrics is unknown: a guess could store a value under
        # the wrong name.
        self.aliases, self.datatypes = {}, {}
        ambiguous = set()
        for declared in self.metrics:
            name, datatype, alias = declared
            if self.datatypes.setdefault(name, datatype) != datatype:
                self.datatypes[name] = 0
            if alias is not None and self.aliases.setdefault(alias, declared) != declared:
                ambiguous.add(alias)
        for alias in ambiguous:
            del self.aliases[alias]

    @classmethod
    def of(cls, metrics: Iterable[Any], since: int | None) -> BirthCertificate:
        """The certificate that the metrics of a birth message declare."""
        named = (metric for metric in metrics if metric.name)
        declared = ((m.name, datatype_of(m), m.alias if m.HasField("alias") else None) for m in named)
        return cls(tuple(declared), since)


NO_CERTIFICATE = BirthCertificate((), None)
"""Used where no certificate is known."""


@dataclass(slots=True)
class MetricReader:
    """Reads the metrics of one message with the certificate that applies to it."""

    certificate: BirthCertificate
    sent_at: int | None
    """The payload's timestamp."""
    values: ValueReader = field(default_factory=ValueReader)
    needs_birth: bool = False
    """Whether a metric needs a certificate that isn't known, or contradicts the known one."""

    def read(self, metric: Any) -> dict[str, Any]:
        """The members of a row that come from the metric.

        Raises:
            Unmappable: as ``Sparkplug.decode``.
        """
        name, datatype = self._name_and_datatype(metric)
        try:
            value = self.values.read(metric, datatype)
        except Unmappable as exc:
            # The datatype may come from the certificate and be outdated.
            self.needs_birth |= exc.reason is Reason.UNDECODABLE and not metric.datatype
            raise Unmappable(exc.reason, f"metric {preview(name)}: {exc}") from None
        return {
            "metric": name,
            "value": value,
            "datatype": DATATYPES.get(datatype),
            "timestamp": metric.timestamp if metric.HasField("timestamp") else self.sent_at,
            "quality": quality_of(metric),
            "historical": metric.is_historical,
            "transient": metric.is_transient,
        }

    def _name_and_datatype(self, metric: Any) -> tuple[str, int]:
        """From the metric itself or from the certificate."""
        declared = self.certificate.aliases.get(metric.alias) if metric.HasField("alias") else None
        if metric.name:
            # If its alias stands for another metric in the certificate, the certificate is outdated.
            self.needs_birth |= declared is not None and declared[0] != metric.name
            datatype = metric.datatype or self.certificate.datatypes.get(metric.name) or datatype_of(metric)
            if not datatype and metric.WhichOneof("value") is not None and not metric.is_null:
                raise self._unknown(
                    f"metric {preview(metric.name)} has no datatype, and no known birth certificate declares it"
                )
            return metric.name, datatype
        if not metric.HasField("alias"):
            raise Unmappable(Reason.UNDECODABLE, "a metric has neither name nor alias")
        if declared is None:
            raise self._unknown(f"no known birth certificate declares alias {metric.alias}")
        name, declared_datatype, _ = declared
        if metric.datatype and declared_datatype and metric.datatype != declared_datatype:
            raise self._unknown(
                f"alias {metric.alias} was declared as {preview(name)} with datatype {declared_datatype} but has "
                f"datatype {metric.datatype}: it probably refers to another metric"
            )
        return name, metric.datatype or declared_datatype or datatype_of(metric)

    def _unknown(self, detail: str) -> Unmappable:
        self.needs_birth = True
        return Unmappable(Reason.UNKNOWN_ALIAS, detail)
