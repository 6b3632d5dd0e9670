"""``init`` from a few samples of real devices: their next, different messages become right rows, too."""

from __future__ import annotations

import base64
import gzip
import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.cli.configuration import read_worker, route_of
from bridge.cli.examples import _example_payload
from bridge.cli.init.command import files_of
from bridge.cli.init.files import CONFIG_FILE
from bridge.cli.init.inference import infer
from bridge.cli.init.results import Inference, Sample
from bridge.config import load
from bridge.mapping import Example, Mapper
from bridge.message import DeadLetter, MqttMessage
from bridge.streamql import input_streams
from tests.unit.test_devices import RECIPES as GUIDE

Payload = bytes | dict[str, Any] | list[Any]
Message = tuple[str, Payload]
Row = dict[str, Any]


class Device(NamedTuple):
    """Samples, and later messages with the rows that they must become, in the order of the routes."""

    samples: list[Message]
    later: list[tuple[str, Payload, Row | list[Row]]]
    routes: int = 1


def encoded(payload: Payload) -> bytes:
    return payload if isinstance(payload, bytes) else json.dumps(payload).encode()


def inferred(samples: list[Message]) -> Inference:
    return infer([Sample(topic, encoded(payload)) for topic, payload in samples])


def mapper_of(inference: Inference, directory: Path) -> Mapper:
    """The mapper that a bridge has with the files that ``init`` writes."""
    for name, text in files_of(inference, mqtt={"mqtt.url": "mqtt://b"}).items():
        (directory / name).write_text(text)
    settings = load(config_file=directory / CONFIG_FILE, environ={}, secret_directories=(), offline=True)
    return Mapper(
        routes=[route_of(route) for route in settings.routes],
        streams=input_streams(read_worker(settings.worker.definition)),
    )


def outcome(mapper: Mapper, topic: str, payload: Payload) -> list[Row] | str:
    mapped = mapper.map(MqttMessage(topic, encoded(payload), 1, False, 1, 0))
    if isinstance(mapped, DeadLetter):
        return f"{mapped.reason}: {mapped.detail}"
    return [mapper.columns_of(row) for row in mapped]


NO = None
TTN = "v3/farm@acme/devices/eui-70b3d57ed0001111/up"
CHIRP = "application/7d809e33-d2ad-4ef1-aac8-2be67501c4d3/device/0101010101010101/event/up"
CHIRP_2 = "application/7d809e33-d2ad-4ef1-aac8-2be67501c4d3/device/0202020202020202/event/up"

DEVICES = {
    "tasmota sensor": Device(
        [("tele/cellar/SENSOR", {"Time": "2026-11-14T22:13:20", "DS18B20": {"Id": "0316A279", "Temperature": 21}})],
        [
            (
                "tele/attic/SENSOR",
                {"Time": "2026-11-14T22:18:20", "DS18B20": {"Id": "0316A280", "Temperature": -3.5}},
                {
                    "device": "attic",
                    "Time": "2026-11-14T22:18:20",
                    "DS18B20_Id": "0316A280",
                    "DS18B20_Temperature": -3.5,
                },
            ),
            ("tele/attic/SENSOR", {"Time": "2026-11-14T22:18:20"}, []),
        ],
    ),
    "tasmota plug": Device(
        [
            (
                "tele/plug/SENSOR",
                {"Time": "2026-11-14T22:13:20", "ENERGY": {"Total": 3, "Power": 0, "Voltage": 230, "Current": 0}},
            ),
            ("tele/plug/STATE", {"Time": "2026-11-14T22:13:20", "Uptime": "0T00:15:08", "POWER": "ON"}),
            ("tele/plug/LWT", b"Online"),
        ],
        [
            (
                "tele/plug2/SENSOR",
                {"Time": "2026-11-14T22:14:20", "ENERGY": {"Total": 3.021, "Power": 12.5, "Voltage": 229}},
                {
                    "device": "plug2",
                    "Time": "2026-11-14T22:14:20",
                    "ENERGY_Total": 3.021,
                    "ENERGY_Power": 12.5,
                    "ENERGY_Voltage": 229.0,
                    "ENERGY_Current": NO,
                },
            ),
            ("tele/plug2/LWT", b"Offline", {"device": "plug2", "value": "Offline"}),
        ],
        routes=3,
    ),
    "zigbee2mqtt": Device(
        [
            ("zigbee2mqtt/kitchen", {"temperature": 21, "humidity": 56, "battery": 97, "linkquality": 120}),
            ("zigbee2mqtt/hall", {"temperature": 20.5, "humidity": 50, "battery": 97, "linkquality": 98}),
            ("zigbee2mqtt/door", {"contact": True, "battery": 100, "linkquality": 60}),
            ("zigbee2mqtt/bridge/state", {"state": "online"}),
        ],
        [
            (
                "zigbee2mqtt/bath",
                {"temperature": -0.5, "battery": 80, "linkquality": 5},
                {"device": "bath", "temperature": -0.5, "humidity": NO, "battery": 80.0, "linkquality": 5.0},
            ),
            (
                "zigbee2mqtt/window",
                {"contact": False, "battery": 99},
                {"device": "window", "contact": False, "battery": 99.0, "linkquality": NO},
            ),
        ],
        routes=3,
    ),
    "zigbee2mqtt availability": Device(
        [("zigbee2mqtt/kitchen/availability", b"online")],
        [("zigbee2mqtt/hall/availability", b"offline", {"device": "hall", "value": "offline"})],
    ),
    "shelly second generation": Device(
        [
            (
                "shellyplus1pm-a8032ab/events/rpc",
                {
                    "src": "shellyplus1pm-a8032ab",
                    "method": "NotifyStatus",
                    "params": {"ts": 1700000000.12, "switch:0": {"id": 0, "apower": 8, "output": True}},
                },
            )
        ],
        [
            (
                "shellyplus1pm-b8032cd/events/rpc",
                {
                    "src": "shellyplus1pm-b8032cd",
                    "method": "NotifyStatus",
                    "params": {"ts": 1700000009.5, "switch:0": {"id": 0, "apower": 8.9}},
                },
                {
                    "device": "shellyplus1pm-b8032cd",
                    "src": "shellyplus1pm-b8032cd",
                    "method": "NotifyStatus",
                    "params_ts": 1700000009.5,
                    "params_switch_0_id": 0,
                    "params_switch_0_apower": 8.9,
                    "params_switch_0_output": NO,
                },
            )
        ],
    ),
    "shelly first generation": Device(
        [
            ("shellies/shellyht-4B2A91/sensor/temperature", b"22"),
            ("shellies/shellyht-4B2A91/sensor/humidity", b"45"),
            ("shellies/shelly1-9F11C2/relay/0", b"on"),
        ],
        [
            (
                "shellies/shellyht-77AA10/sensor/temperature",
                b"-7.5",
                {"device": "shellyht-77AA10", "quantity": "temperature", "value": -7.5},
            ),
            ("shellies/shelly1-9F11C3/relay/0", b"off", {"device": "shelly1-9F11C3", "relay": "0", "value": "off"}),
        ],
        routes=2,
    ),
    "esphome": Device(
        [
            ("livingroom/sensor/temperature/state", b"21"),
            ("livingroom/sensor/humidity/state", b"40.5"),
            ("livingroom/binary_sensor/door/state", b"ON"),
            ("livingroom/status", b"online"),
        ],
        [
            ("garage/sensor/co2/state", b"412.5", {"device": "garage", "sensor": "co2", "value": 412.5}),
            ("garage/binary_sensor/gate/state", b"OFF", {"device": "garage", "sensor": "gate", "value": "OFF"}),
            ("livingroom/status", b"offline", {"value": "offline"}),
        ],
        routes=3,
    ),
    "home assistant statestream": Device(
        [("homeassistant/sensor/outdoor/state", b"-3"), ("homeassistant/sensor/outdoor/state", b"unavailable")],
        [
            ("homeassistant/sensor/pool/state", b"17.25", {"entity": "pool", "value": 17.25}),
            ("homeassistant/sensor/pool/state", b"unknown", []),
        ],
    ),
    "home assistant, numbers and texts": Device(
        [
            ("homeassistant/sensor/outdoor/state", b"-3"),
            ("homeassistant/sensor/washer/state", b"rinse"),
        ],
        [
            ("homeassistant/sensor/pool/state", b"17.25", {"entity": "pool", "value": 17.25}),
            ("homeassistant/sensor/dryer/state", b"idle", {"entity": "dryer", "value": "idle"}),
        ],
        routes=2,
    ),
    "rtl_433": Device(
        [
            (
                "rtl_433/pi/events",
                {"time": "2026-03-01 18:42:29", "model": "Acurite-Tower", "id": 37, "temperature_C": 17, "mic": "CRC"},
            ),
            ("rtl_433/pi/events", {"time": "2026-03-01 18:42:31", "model": "Honeywell-Door", "id": 9, "state": "open"}),
        ],
        [
            (
                "rtl_433/attic/events",
                {"time": "2026-03-01 18:43:29", "model": "Acurite-Tower", "id": 38, "temperature_C": -17.5},
                {
                    "host": "attic",
                    "time": "2026-03-01 18:43:29",
                    "model": "Acurite-Tower",
                    "id": 38,
                    "temperature_C": -17.5,
                    "mic": NO,
                },
            ),
            (
                "rtl_433/pi/events",
                {"time": "2026-03-01 18:44:31", "model": "Honeywell-Door", "id": 10, "state": "closed"},
                {
                    "host": "pi",
                    "time": "2026-03-01 18:44:31",
                    "model": "Honeywell-Door",
                    "id": 10,
                    "state": "closed",
                },
            ),
        ],
        routes=2,
    ),
    "rtl_433, values": Device(
        [
            ("rtl_433/pi/devices/Acurite-Tower/A/37/temperature_C", b"17"),
            ("rtl_433/pi/devices/Acurite-Tower/A/37/time", b"2026-03-01 18:42:29"),
        ],
        [
            (
                "rtl_433/pi/devices/Nexus/2/9/humidity",
                b"40.5",
                {"host": "pi", "model": "Nexus", "channel": "2", "id": "9", "quantity": "humidity", "value": 40.5},
            )
        ],
        routes=2,
    ),
    "victron": Device(
        [
            ("N/d41243b4f71d/system/0/Dc/Battery/Power", {"value": 120}),
            ("N/d41243b4f71d/system/0/Dc/Battery/Voltage", {"value": 52.5}),
            ("N/d41243b4f71d/system/0/Dc/Battery/Name", {"value": "Pylontech"}),
        ],
        [
            (
                "N/e51243b4f71d/system/0/Dc/Battery/Power",
                {"value": -35.5},
                {"portal": "e51243b4f71d", "instance": "0", "quantity": "Power", "value": -35.5},
            ),
        ],
        routes=2,
    ),
    "openwb": Device(
        [("openWB2/evu/W", b"120"), ("openWB2/evu/Hz", b"50"), ("openWB2/pv/W", b"-2400")],
        [("openWB2/housebattery/W", b"-0.5", {"device": "housebattery", "quantity": "W", "value": -0.5})],
    ),
    "dsmr reader": Device(
        [("dsmr/reading/electricity_currently_delivered", b"0"), ("dsmr/reading/electricity_delivered_1", b"4042.5")],
        [("dsmr/reading/phase_power_l1", b"0.35", {"quantity": "phase_power_l1", "value": 0.35})],
    ),
    "dsmr reader, json": Device(
        [
            (
                "dsmr/json",
                {"timestamp": "2026-07-18T09:34:15Z", "electricity_delivered_1": "4042.511", "extra_device": None},
            )
        ],
        [
            (
                "dsmr/json",
                {"timestamp": "2026-07-18T09:34:25+02:00", "electricity_delivered_1": "-1.5", "extra_device": "gas"},
                {"timestamp": 1784360065000, "electricity_delivered_1": -1.5, "extra_device": "gas"},
            )
        ],
    ),
    "the things stack": Device(
        [
            (
                TTN,
                {
                    "end_device_ids": {"device_id": "probe-1"},
                    "received_at": "2026-07-18T09:34:15.775Z",
                    "uplink_message": {"f_port": 1, "f_cnt": 7, "decoded_payload": {"temperature": 4}},
                },
            )
        ],
        [
            (
                TTN.replace("1111", "2222"),
                {
                    "end_device_ids": {"device_id": "probe-2"},
                    "received_at": "2026-07-18T09:34:16Z",
                    "uplink_message": {"f_port": 2, "f_cnt": 8, "decoded_payload": {"temperature": -4.75}},
                },
                {
                    "application": "farm@acme",
                    "device": "eui-70b3d57ed0002222",
                    "end_device_ids_device_id": "probe-2",
                    "received_at": 1784367256000,
                    "uplink_message_f_port": 2,
                    "uplink_message_f_cnt": 8,
                    "uplink_message_decoded_payload_temperature": -4.75,
                },
            )
        ],
    ),
    "chirpstack": Device(
        [
            (CHIRP, {"deduplicationId": "3ac7e3c4", "fCnt": 1, "object": {"temperature": 21, "humidity": 40}}),
            (CHIRP_2, {"deduplicationId": "3ac7e3c5", "fCnt": 2, "object": {"temperature": 22, "humidity": 41}}),
        ],
        [
            (
                CHIRP_2.replace("0202020202020202", "0303030303030303"),
                {"deduplicationId": "3ac7e3c6", "fCnt": 3, "object": {"temperature": 21.5}},
                {
                    "application": "7d809e33-d2ad-4ef1-aac8-2be67501c4d3",
                    "device": "0303030303030303",
                    "deduplicationId": "3ac7e3c6",
                    "fCnt": 3,
                    "object_temperature": 21.5,
                    "object_humidity": NO,
                },
            )
        ],
    ),
    "wled": Device(
        [("wled/kitchen/g", b"128"), ("wled/kitchen/c", b"#FFAA00"), ("wled/kitchen/status", b"online")],
        [("wled/hall/g", b"0", {"device": "hall", "value": 0.0})],
        routes=3,
    ),
    "go-e": Device(
        [("go-eCharger/054321/nrg", [230, 231, 0]), ("go-eCharger/054321/amp", b"16"), ("go-eCharger/054321/wh", b"1")],
        [("go-eCharger/054322/amp", b"10.5", {"charger": "054322", "quantity": "amp", "value": 10.5})],
        routes=2,
    ),
    "ems-esp": Device(
        [
            ("ems-esp/boiler_data", {"outdoortemp": 5, "curflowtemp": 40, "heatingactive": "off", "burnstarts": 1200}),
            ("ems-esp/thermostat_data", {"datetime": "18:42 01.03.2026", "seltemp": 21, "currtemp": 20.5}),
        ],
        [
            (
                "ems-esp/boiler_data",
                {"outdoortemp": -5.5, "curflowtemp": 40.5, "heatingactive": "on"},
                {"outdoortemp": -5.5, "curflowtemp": 40.5, "heatingactive": "on", "burnstarts": NO},
            ),
        ],
        routes=2,
    ),
    "kepware": Device(
        [
            (
                "kep/line1",
                {
                    "timestamp": 1712345678901,
                    "values": [
                        {"id": "C.D.T1", "v": 42, "q": True, "t": 1712345678900},
                        {"id": "C.D.T2", "v": "ok", "q": True, "t": 1712345678900},
                    ],
                },
            )
        ],
        [
            (
                "kep/line2",
                {
                    "timestamp": 1712345679901,
                    "values": [
                        {"id": "C.D.T2", "v": "bad", "q": False, "t": 1712345679900},
                        {"id": "C.D.T1", "v": -42.5, "q": True, "t": 1712345679900},
                    ],
                },
                [
                    {
                        "device": "line2",
                        "timestamp": 1712345679901,
                        "id": "C.D.T1",
                        "v": -42.5,
                        "q": True,
                        "t": 1712345679900,
                    },
                    {
                        "device": "line2",
                        "timestamp": 1712345679901,
                        "id": "C.D.T2",
                        "v": "bad",
                        "q": False,
                        "t": 1712345679900,
                    },
                ],
            )
        ],
        routes=2,
    ),
    "node-red": Device(
        [("factory/press/7/state", {"speed": 1200, "alarm": False, "operator": "ann"})],
        [
            (
                "factory/press/8/state",
                {"speed": 1200.5, "alarm": True},
                {"device": "8", "speed": 1200.5, "alarm": True, "operator": NO},
            )
        ],
    ),
    "sonoff": Device(
        [
            (
                "sonoff/1000bcdef1/state",
                {"deviceid": "1000bcdef1", "params": {"currentTemperature": "21", "switch": "on"}},
            )
        ],
        [
            (
                "sonoff/1000bcdef2/state",
                {"deviceid": "1000bcdef2", "params": {"currentTemperature": "-21.5", "switch": "off"}},
                {
                    "device": "1000bcdef2",
                    "deviceid": "1000bcdef2",
                    "params_currentTemperature": -21.5,
                    "params_switch": "off",
                },
            )
        ],
    ),
    "openmqttgateway": Device(
        [
            (
                "home/OMG_ESP32_BLE/BTtoMQTT/A4C138112233",
                {"id": "A4:C1:38:11:22:33", "rssi": -70, "tempc": 21, "hum": 40},
            ),
        ],
        [
            (
                "home/OMG_2/BTtoMQTT/A4C138112244",
                {"id": "A4:C1:38:11:22:44", "rssi": -71, "tempc": -1.5},
                {
                    "gateway": "OMG_2",
                    "device": "A4C138112244",
                    "id": "A4:C1:38:11:22:44",
                    "rssi": -71.0,
                    "tempc": -1.5,
                    "hum": NO,
                },
            )
        ],
    ),
    "owntracks": Device(
        [
            ("owntracks/ann/phone", {"_type": "location", "lat": 47, "lon": 8.5417, "tst": 1700000000, "batt": 85}),
            ("owntracks/ann/phone", {"_type": "lwt", "tst": 1700000000}),
        ],
        [
            (
                "owntracks/bob/tablet",
                {"_type": "location", "lat": -33.5, "lon": 18.25, "tst": 1700000060},
                {
                    "user": "bob",
                    "device": "tablet",
                    "type": "location",
                    "lat": -33.5,
                    "lon": 18.25,
                    "tst": 1700000060,
                    "batt": NO,
                },
            )
        ],
        routes=2,
    ),
    "opendtu": Device(
        [("solar/116180400144/0/power", b"0"), ("solar/116180400144/0/voltage", b"231.5")],
        [
            (
                "solar/116180400145/1/power",
                b"312.5",
                {"inverter": "116180400145", "channel": "1", "quantity": "power", "value": 312.5},
            )
        ],
    ),
    "teslamate": Device(
        [("teslamate/cars/1/battery_level", b"80"), ("teslamate/cars/1/state", b"asleep")],
        [
            ("teslamate/cars/2/outside_temp", b"-4.5", {"car": "2", "quantity": "outside_temp", "value": -4.5}),
            ("teslamate/cars/2/state", b"driving", {"car": "2", "quantity": "state", "value": "driving"}),
        ],
        routes=2,
    ),
    "meshtastic": Device(
        [
            (
                "msh/EU_868/2/json/LongFast/!a1b2c3d4",
                {"from": 2712847316, "type": "telemetry", "payload": {"air_temperature": 20, "voltage": 4.1}},
            ),
            (
                "msh/EU_868/2/json/LongFast/!a1b2c3d4",
                {"from": 2712847316, "type": "position", "payload": {"latitude_i": 473769000, "altitude": 400}},
            ),
        ],
        [
            (
                "msh/EU_868/2/json/LongFast/!a1b2c3ff",
                {"from": 2712847317, "type": "telemetry", "payload": {"air_temperature": -2.5}},
                {
                    "region": "EU_868",
                    "channel": "LongFast",
                    "node": "!a1b2c3ff",
                    "from_": 2712847317.0,
                    "type": "telemetry",
                    "payload_air_temperature": -2.5,
                    "payload_voltage": NO,
                },
            ),
        ],
        routes=2,
    ),
    "gps with and without a fix": Device(
        [("gps/t", {"fix": True, "lat": 47.1, "lon": 8.2, "alt": 400.5}), ("gps/t", {"fix": False})],
        [("gps/t", {"fix": False, "alt": -3}, {"fix": False, "lat": NO, "lon": NO, "alt": -3.0})],
    ),
    "a clock that once wrote nan": Device(
        [
            ("clock/st", b'{"rssi":-50,"t":20.5,"lux":5.5}'),
            ("clock/st", b'{"rssi":-50,"t":21,"lux":5.5}'),
            ("clock/st", b'{"rssi":-50,"t":nan,"lux":5.5}'),
        ],
        [("clock/st", {"rssi": -51, "t": -0.5}, {"rssi": -51.0, "t": -0.5, "lux": NO})],
    ),
    "a root with a digit": Device(
        [("knx2mqtt/1", {"v": 1}), ("knx2mqtt/2", {"v": 2}), ("knx2mqtt/3", {"v": 2})],
        [("knx2mqtt/4", {"v": 0.5}, {"device": "4", "v": 0.5})],
    ),
    "csv with semicolons and decimal commas": Device(
        [("logger/roof", b"35,4;50,1\n36,2;50,0\n")],
        [("logger/yard", b"-0,5;1\n", {"logger": "yard", "cell_1": -0.5, "cell_2": 1.0})],
    ),
    "csv with a header": Device(
        [("plant/a/export", b"id,temp,state\n007,21,ok\n"), ("plant/b/export", b"id,temp,state\n008,22,ok\n")],
        [("plant/c/export", b"id,temp,state\n9,-0.5,bad\n", {"plant": "c", "id": "9", "temp": -0.5, "state": "bad"})],
    ),
    "a lone decimal comma": Device(
        [("heat/flow", b"-0,5")],
        [("heat/flow", b"35,04", {"value": 35.04})],
    ),
    "influx": Device(
        [
            ("telegraf/web1/all", b"cpu,host=web1 usage=1,idle=98 1700000000000000000"),
            ("telegraf/web1/all", b"mem,host=web1 used=5i 1700000000000000000"),
        ],
        [
            (
                "telegraf/web2/all",
                b"cpu,host=web2 usage=1.5 1700000001000000000",
                {
                    "host": "web2",
                    "measurement": "cpu",
                    "tags_host": "web2",
                    "fields_usage": 1.5,
                    "fields_idle": NO,
                    "time": 1700000001000000000,
                },
            )
        ],
        routes=2,
    ),
}


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_the_next_different_message_of_a_device_becomes_a_right_row(device: Device, tmp_path: Path) -> None:
    inference = inferred(device.samples)
    mapper = mapper_of(inference, tmp_path)

    assert len(inference.routes) == device.routes
    for topic, payload, expected in device.later:
        assert outcome(mapper, topic, payload) == (expected if isinstance(expected, list) else [expected])


# The next message for each recipe of the guide, whose examples are the samples.
RECIPES: dict[str, tuple[str, Payload, Row | list[Row]]] = {
    "Tasmota": (
        "tele/attic/SENSOR",
        {"Time": "2026-11-14T23:13:20", "DS18B20": {"Id": "0316A280", "Temperature": -1}, "TempUnit": "C"},
        {
            "device": "attic",
            "Time": "2026-11-14T23:13:20",
            "DS18B20_Id": "0316A280",
            "DS18B20_Temperature": -1.0,
            "TempUnit": "C",
        },
    ),
    "Zigbee2MQTT": (
        "zigbee2mqtt/window",
        {"contact": False},
        {"device": "window", "contact": False, "battery": NO},
    ),
    "Shelly, second generation": (
        "shellyplus1pm-b9043bc/events/rpc",
        {"src": "x", "method": "NotifyStatus", "params": {"ts": 1700000001, "switch:0": {"id": 0, "output": False}}},
        {
            "device": "shellyplus1pm-b9043bc",
            "src": "x",
            "method": "NotifyStatus",
            "params_ts": 1700000001.0,
            "params_switch_0_id": 0,
            "params_switch_0_apower": NO,
            "params_switch_0_output": False,
        },
    ),
    "Shelly, first generation; plain numbers": (
        "shellies/shellyht-77AA10/sensor/temperature",
        b"-3",
        {"device": "shellyht-77AA10", "value": -3.0},
    ),
    "Home Assistant statestream": (
        "homeassistant/sensor/pool/state",
        b"21.5",
        {"entity": "pool", "value": 21.5},
    ),
    "ChirpStack 4": (
        CHIRP_2,
        {"deduplicationId": "4b", "time": "2026-07-18T09:34:16Z", "fPort": 2, "object": {"temperature": -2}},
        {
            "application": "7d809e33-d2ad-4ef1-aac8-2be67501c4d3",
            "device": "0202020202020202",
            "deduplicationId": "4b",
            "time": 1784367256000,
            "deviceInfo_deviceName": NO,
            "fPort": 2,
            "object_temperature": -2.0,
            "rxInfo": NO,
        },
    ),
    "The Things Stack": (
        "v3/farm@acme/devices/probe-2/up",
        {"end_device_ids": {"device_id": "probe-2"}, "uplink_message": {"decoded_payload": {"temperature": 5}}},
        {
            "application": "farm@acme",
            "device": "probe-2",
            "end_device_ids_device_id": "probe-2",
            "uplink_message_f_port": NO,
            "uplink_message_decoded_payload_temperature": 5.0,
            "uplink_message_rx_metadata": NO,
        },
    ),
    "OwnTracks": (
        "owntracks/bob/tablet",
        {"_type": "lwt", "tst": 1700000009},
        {"user": "bob", "device": "tablet", "type": "lwt", "tst": 1700000009},
    ),
    "Telegraf, line protocol": (
        "telegraf/web2/cpu",
        b"cpu,cpu=cpu0,host=web2 usage_idle=98i 1700000001000000000",
        {
            "host": "web2",
            "measurement": "cpu",
            "tags_cpu": "cpu0",
            "tags_host": "web2",
            "fields_usage_idle": 98.0,
            "fields_usage_user": NO,
            "time": 1700000001000000000,
        },
    ),
    "Telegraf, JSON": (
        "telegraf-json/web2/mem",
        {"metrics": [{"fields": {"used": 0.5}, "name": "mem", "timestamp": 1700000020}]},
        {"device": "web2", "fields_used": 0.5, "name": "mem", "tags_host": NO, "timestamp": 1700000020},
    ),
    "Modbus gateway": (
        "modbus/13/registers",
        {"ts": "1700000001", "registers": [-5]},
        {"device": "13", "ts": 1700000001, "registers": [-5]},
    ),
    "CSV logger": (
        "logger/yard",
        b"2026-11-14T23:13:20+01:00;-1;56.5\n",
        {"logger": "yard", "time": 1794694400000, "cell_2": -1.0, "cell_3": 56.5},
    ),
    "Custom text": ("station/lake", b"T=7C H=9%", {"station": "lake", "value": "T=7C H=9%"}),
    "MessagePack and CBOR": (
        "mp/n9",
        bytes.fromhex("81a474656d70ff"),
        {"device": "n9", "temp": -1.0, "bat": NO},
    ),
    "Compressed batches": ("batch/b2", gzip.compress(b'[{"t": -3}]'), {"device": "b2", "t": -3.0}),
    "SenML": (
        "senml/g2",
        [{"n": "temp", "u": "Cel", "v": -1}],
        {"device": "g2", "bn": NO, "n": "temp", "u": "Cel", "v": -1.0},
    ),
    "Sparkplug B": (
        "spBv1.0/other/NBIRTH/press-5",
        base64.b64decode("CIDQlf+8MRILCgViZFNlcSAIWAASIAoKVGFuay9MZXZlbBABGIDQlf+8MSAKaQAAAAAA4FFAGAA="),
        {
            "group_id": "other",
            "edge_node_id": "press-5",
            "device_id": NO,
            "metric": "Tank/Level",
            "value": 71.5,
            "timestamp": 1700000000000,
        },
    ),
}


@pytest.mark.parametrize("heading", RECIPES)
def test_the_examples_of_the_guide_give_a_mapping_for_the_next_message(heading: str, tmp_path: Path) -> None:
    routes = next(recipe[2] for recipe in GUIDE if recipe[0] == heading)
    samples = [
        Sample(test["topic"], _example_payload(Example(**{"encoding": "text", **test}), heading))
        for route in tomllib.loads(routes)["routes"]
        for test in route["test"]
    ]
    topic, payload, expected = RECIPES[heading]

    mapper = mapper_of(infer(samples), tmp_path)

    assert outcome(mapper, topic, payload) == (expected if isinstance(expected, list) else [expected])
