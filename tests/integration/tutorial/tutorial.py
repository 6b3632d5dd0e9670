"""What the tutorial's Python program does, call by call: create, activate, publish two rows, query, delete.

Parameters come from the environment: GDN_URL, GDN_KEY, GDN_TENANT, GDN_DEFINITION (a file), GDN_PAUSE (seconds).
"""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import requests
import websocket

URL = os.environ["GDN_URL"]
AUTHORIZATION = f"apikey {os.environ['GDN_KEY']}"
APPS = f"{URL}/_fabric/_system/_api/streamapps"
NAME = "stream_worker_tutorial"
READINGS = [
    {"deviceID": "AD11", "roomNo": 200, "temperature": 18},
    {"deviceID": "AD11", "roomNo": 201, "temperature": 47},
]

session = requests.session()
session.trust_env = False
session.headers.update({"content-type": "application/json", "authorization": AUTHORIZATION})

definition = Path(os.environ["GDN_DEFINITION"]).read_text()
print("created", session.post(APPS, data=json.dumps({"definition": definition, "regions": []})).json())
print("activated", session.patch(f"{APPS}/{NAME}/active?active=true").json())
time.sleep(float(os.environ.get("GDN_PAUSE", "1")))

producer = websocket.create_connection(
    f"{URL.replace('http', 'ws', 1)}/_ws/ws/v2/producer/persistent/{os.environ['GDN_TENANT']}"
    "/c8local._system/c8locals.tutorialAppInputStream",
    header={"content-type": "application/json", "authorization": AUTHORIZATION},
)
for reading in READINGS:
    payload = base64.b64encode(json.dumps(reading).encode()).decode()
    producer.send(json.dumps({"payload": payload}))
    receipt = json.loads(producer.recv())
    print("published" if receipt["result"] == "ok" else "failed", receipt)
producer.close()

query = {"id": "tutorialStreamAppQuery", "query": "FOR doc IN tutorialAppOutputTable return doc", "bindVars": {}}
print("rows", session.post(f"{URL}/_fabric/_system/_api/cursor", data=json.dumps(query)).json()["result"])
print("deleted", session.delete(f"{APPS}/{NAME}").json())
