"""A far end that is not the bottleneck: the REST calls that the daemon makes, a producer socket with batched receipts.

Shares no code with the bridge. It keeps the id of every payload, to find lost and duplicate rows: GET /counts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import selectors
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
PAYLOAD = re.compile(rb'"payload": ?"([A-Za-z0-9+/=]+)"')
CONTEXT = re.compile(rb'"context": ?"(\d+)"')


class Acker:
    def __init__(self, definition: str) -> None:
        name = re.search(r"@App:name\('(\w+)'\)", definition)
        assert name is not None
        self.worker = {"name": name[1], "definition": definition, "regions": ["here"], "isActive": True}
        self.server = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self.server.getsockname()[1]
        self.payloads: Counter[bytes] = Counter()
        self.last_at = 0.0
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.server, selectors.EVENT_READ)
        self.buffers: dict[socket.socket, bytes] = {}
        self.upgraded: set[socket.socket] = set()

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.server:
                    sock, _ = self.server.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.selector.register(sock, selectors.EVENT_READ)
                    self.buffers[sock] = b""
                else:
                    self.read(key.fileobj)  # type: ignore[arg-type]

    def read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(262144)
            if not data:
                raise ConnectionError
            self.buffers[sock] += data
            if sock in self.upgraded:
                self.frames(sock)
            else:
                self.requests(sock)
        except OSError:
            self.selector.unregister(sock)
            sock.close()
            del self.buffers[sock]
            self.upgraded.discard(sock)

    def requests(self, sock: socket.socket) -> None:
        while b"\r\n\r\n" in self.buffers[sock]:
            head, _, rest = self.buffers[sock].partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self.buffers[sock] = rest[size:]
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
            if key:
                accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
                sock.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                self.upgraded.add(sock)
                return
            status, body = self.answer(head.split(b" ", 2)[1].decode())
            text = json.dumps(body).encode()
            sock.sendall(
                b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(text))
                + text
            )

    def answer(self, path: str) -> tuple[int, Any]:
        if path.startswith("/counts"):
            return 200, {"frames": self.payloads.total(), "unique": len(self.payloads), "last_at": self.last_at}
        if path.startswith("/reset"):
            self.payloads.clear()
            return 200, {}
        if "/streamapps" in path:
            return 200, {"error": False, "code": 200, "streamApps": [self.worker]}
        if path.startswith("/apid/otp"):
            return 200, {"otp": "x"}
        if path.startswith("/datacenter"):
            return 200, {"name": "here", "tags": {"api": f"127.0.0.1:{self.port}", "url": f"127.0.0.1:{self.port}"}}
        return 201, {"result": [0], "hasMore": False, "error": False, "code": 201}

    def frames(self, sock: socket.socket) -> None:
        data = self.buffers[sock]
        at, end = 0, len(data)
        answers: list[bytes] = []
        while end - at >= 2:
            size, start = data[at + 1] & 127, at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            stop = start + 4 + size
            if stop > end:
                break
            if data[at] & 15 == 1:
                mask = data[start : start + 4] * (size // 4 + 1)
                text = (int.from_bytes(data[start + 4 : stop], "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(
                    size, "big"
                )
                payload, context = PAYLOAD.search(text), CONTEXT.search(text)
                assert payload is not None
                self.payloads[payload[1]] += 1
                answer = b'{"result":"ok","messageId":"CAAQAw=="'
                answer += b',"context":"' + context[1] + b'"}' if context else b"}"
                answers.append(bytes((0x81, len(answer))) + answer)
            at = stop
        self.buffers[sock] = data[at:]
        if answers:
            self.last_at = time.monotonic()
            sock.sendall(b"".join(answers))


if __name__ == "__main__":
    acker = Acker(Path(sys.argv[1]).read_text())
    print(acker.port, flush=True)
    acker.serve()
