"""Connects to broker and GDN, with the credentials and TLS files that are current at each attempt.

Called by the dialling threads; blocks up to the configured timeouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from bridge.config import Settings
from bridge.config.gdn import GdnSettings
from bridge.errors import GdnRejected, GdnUnavailable
from bridge.gdn import producer
from bridge.gdn.address import GdnAddress, Numbering, with_otp
from bridge.gdn.pulsar import PulsarRest, partitions_sentence
from bridge.gdn.region import Region
from bridge.gdn.rest import GdnRest
from bridge.links.tls import Tls
from bridge.log import get_logger, register_secret
from bridge.mqtt.link import MqttLink, MqttOptions
from bridge.mqtt.link import dial as dial_broker
from bridge.mqtt.session import MqttSession
from bridge.service.credentials import Credentials, CredentialSource
from bridge.streamql.streams import InputStream
from bridge.timing import Pace

log = get_logger(__name__)


class Connections:
    """Dials the broker and the producers. Any thread.

    Args:
        settings: those that the bridge was started with.
        reload: loads them again from the same sources, for new credentials; raises ConfigError.
        streams: the worker's input streams, by GDN stream.
        rest: for one-time passwords; gets new credentials.
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
        self._brokers = {str(address): address for address in settings.mqtt.brokers}
        self._credentials = CredentialSource(settings, reload)
        self._streams = streams
        self._rest = rest
        self._region = region
        self._is_gdn = settings.gdn.kind == "gdn"
        self._address = GdnAddress.parse(settings.gdn.url, prefixed=self._is_gdn)
        self._proxies = settings.gdn.proxies
        self._pulsar = None if self._is_gdn or not settings.delivery.deduplicate else pulsar_rest(settings.gdn)

    def refresh(self) -> Credentials:
        """The current credentials, which requests to GDN use from now on."""
        credentials = self._credentials.now()
        if credentials.api_key is not None:
            self._rest.use_key(credentials.api_key)
        elif credentials.account is not None:
            self._rest.use_account(credentials.account)
        return credentials

    def dial_mqtt(self, filters: Sequence[str], session: MqttSession) -> MqttLink:
        """A connection to the session's broker that wants ``filters``.

        Raises:
            MqttUnavailable: the broker can't be reached.
        """
        mqtt, credentials = self._settings.mqtt, self.refresh()
        address = self._brokers[session.broker]
        options = MqttOptions(
            client_id=session.client_id,
            version=mqtt.version,
            username=credentials.mqtt_username,
            password=credentials.mqtt_password,
            keepalive=mqtt.keepalive,
            session_expiry=mqtt.session_expiry,
            receive_maximum=mqtt.receive_maximum,
            watch_drops=session.watch_drops,
            silence_timeout=mqtt.silence_timeout,
            qos=mqtt.qos,
            subscribe_on_connect=False,  # the intake subscribes: MqttSession.may_subscribe
        )
        return dial_broker(
            host=address.host,
            port=address.port,
            path=address.path,
            tls=mqtt.tls_files(address),
            connect_timeout=mqtt.connect_timeout,
            options=options,
            filters=filters,
            known=session.known.filters,
            known_qos=session.known.qos,
        )

    def dial_producer(self, stream: str, numbering: Numbering | None) -> producer.ProducerLink:
        """A producer on the stream; without ``numbering`` if the far end refuses it.

        Raises:
            As ``producer.dial`` and the requests of ``GdnRest``.
        """
        try:
            return self._dial_producer(stream, numbering)
        except GdnRejected as exc:
            # Older brokers answer 400 to a first sequence number (gdn/address.py, Numbering).
            if numbering is None or exc.status != HTTPStatus.BAD_REQUEST:
                raise
        return self._dial_producer(stream, None)

    def _dial_producer(self, stream: str, numbering: Numbering | None) -> producer.ProducerLink:
        credentials = self.refresh()
        link = self._dial(stream, numbering, credentials)
        if self._pulsar is not None and link.deduplicates:
            try:
                # Only now: Pulsar may create the topic for the producer, with partitions.
                self._refuse_partitions(self._pulsar, stream, credentials.api_key)
            except GdnUnavailable:
                link.close()
                raise
        return link

    def _refuse_partitions(self, rest: PulsarRest, topic: str, token: str | None) -> None:
        """Raise GdnUnavailable if the topic has partitions. That this can't be known is only logged."""
        gdn = self._settings.gdn
        try:
            partitions = rest.partitions(tenant=gdn.tenant or "", namespace=gdn.fabric, topic=topic, token=token)
        except GdnUnavailable as exc:
            log.warning(
                "producer.partitions_unknown",
                stream=topic,
                error=str(exc),
                hint="a partitioned topic may store rows twice; gdn.url should also be that of Pulsar's REST API",
            )
            return
        if partitions:
            raise GdnUnavailable(partitions_sentence(topic, partitions), pace=Pace.REFUSED)

    def _dial(self, stream: str, numbering: Numbering | None, credentials: Credentials) -> producer.ProducerLink:
        gdn, delivery = self._settings.gdn, self._settings.delivery
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
                # It becomes part of the URL, which the text of an error may repeat.
                register_secret(otp)
                url = with_otp(url, otp)
            else:
                headers.append(f"Authorization: {self._rest.authorization()}")
            # GdnRest counts its own requests; the upgrade isn't one of them.
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
            proxies=self._proxies,
            connect_timeout=gdn.request_timeout,
            window=delivery.window,
            receipt_timeout=delivery.receipt_timeout,
            ping_interval=delivery.ping_interval,
            deduplicates=numbering is not None,
            read_token=None if self._is_gdn else lambda: self.refresh().api_key,
        )


def pulsar_rest(gdn: GdnSettings) -> PulsarRest:
    """A client for the REST API of the plain Pulsar in the settings.

    Raises:
        ConfigError: a variable of the environment names an unusable proxy.
    """
    address = GdnAddress.parse(gdn.url, prefixed=False)
    return PulsarRest(
        base_url=address.base_url,
        fabric=gdn.fabric,
        api_key="",
        timeout=gdn.request_timeout,
        ca_file=None if gdn.ca_file is None else str(gdn.ca_file),
        proxy=gdn.proxies.find(address.host, secure=address.secure),
    )
