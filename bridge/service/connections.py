"""How broker and GDN are reached: their addresses, and the credentials and TLS files that stand there at each attempt.

Called by the dialling threads; may take as long as the timeouts say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.config import Settings
from bridge.errors import GdnRejected
from bridge.gdn import producer
from bridge.gdn.address import GdnAddress, Numbering, with_otp
from bridge.gdn.region import Region
from bridge.gdn.rest import GdnRest
from bridge.links.tls import Tls
from bridge.log import register_secret
from bridge.mqtt import link as mqtt_source
from bridge.mqtt.session import MqttSession
from bridge.service.credentials import Credentials, CredentialSource
from bridge.streamql.streams import InputStream

BAD_REQUEST = 400


class Connections:
    """Any thread.

    Args:
        settings: as the bridge was started with.
        reload: loads them again from where they came from, for new credentials; raises ConfigError.
        streams: what the worker reads, by GDN stream.
        rest: for one-time passwords, and told new credentials.
        region: where the worker runs.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        reload: Callable[[], Settings],
        streams: Mapping[str, InputStream],
        rest: GdnRest,
        region: Region,
    ) -> None:
        self._settings = settings
        self._credentials = CredentialSource(settings, reload)
        self._streams = streams
        self._rest = rest
        self._region = region
        self._is_gdn = settings.gdn.kind == "gdn"
        self._address = GdnAddress.parse(settings.gdn.url, prefixed=self._is_gdn)

    def refresh(self) -> Credentials:
        """The credentials that stand there now, which GDN's REST uses from now on."""
        credentials = self._credentials.now()
        if credentials.api_key is not None:
            self._rest.use_key(credentials.api_key)
        elif credentials.account is not None:
            self._rest.use_account(credentials.account)
        return credentials

    def dial_mqtt(self, filters: Sequence[str], session: MqttSession) -> mqtt_source.MqttLink:
        """A connection to the broker that wants ``filters``.

        Raises:
            As ``mqtt_source.dial``.
        """
        mqtt, credentials = self._settings.mqtt, self.refresh()
        return mqtt_source.dial(
            host=mqtt.host,
            port=mqtt.port,
            tls=Tls(mqtt.ca_file, mqtt.cert_file, mqtt.key_file) if mqtt.tls else None,
            connect_timeout=mqtt.connect_timeout,
            filters=filters,
            known=session.known_filters,
            client_id=mqtt.client_id,
            version=5 if mqtt.protocol == "5" else 4,
            username=credentials.mqtt_username,
            password=credentials.mqtt_password,
            keepalive=mqtt.keepalive,
            session_expiry=mqtt.session_expiry,
            receive_maximum=mqtt.receive_maximum,
            watch_drops=mqtt.watch_drops and session.watch_drops,
            silence_timeout=mqtt.silence_timeout,
        )

    def dial_producer(self, stream: str, numbering: Numbering | None) -> producer.ProducerLink:
        """A producer on the stream; without ``numbering`` if the far end refuses that.

        Raises:
            As ``producer.dial`` and the requests of ``GdnRest``.
        """
        try:
            return self._dial_producer(stream, numbering)
        except GdnRejected as exc:
            if numbering is None or exc.status != BAD_REQUEST:
                raise
        return self._dial_producer(stream, None)

    def _dial_producer(self, stream: str, numbering: Numbering | None) -> producer.ProducerLink:
        gdn, delivery, credentials = self._settings.gdn, self._settings.delivery, self.refresh()
        headers = []
        if self._is_gdn:
            url = self._address.producer_url(
                tenant=gdn.tenant or self._rest.tenant(),
                fabric=gdn.fabric,
                scope=self._streams[stream].scope,
                stream=stream,
                host=self._region.host(),
                numbering=numbering,
            )
            if gdn.authentication == "otp":
                otp = self._rest.otp()
                register_secret(otp)
                url = with_otp(url, otp)
            else:
                headers.append(f"Authorization: {self._rest.authorization()}")
            self._rest.budget.take()
        else:
            url = self._address.pulsar_producer_url(
                tenant=gdn.tenant or "", namespace=gdn.fabric, topic=stream, numbering=numbering
            )
            if credentials.api_key is not None:
                headers.append(f"Authorization: Bearer {credentials.api_key}")
        return producer.dial(
            url=url,
            headers=headers,
            tls=Tls(gdn.ca_file),
            connect_timeout=gdn.request_timeout,
            window=delivery.window,
            receipt_timeout=delivery.receipt_timeout,
            ping_interval=delivery.ping_interval,
            deduplicates=numbering is not None,
        )
