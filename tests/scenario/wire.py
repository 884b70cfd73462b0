"""The protocol of proto/PROTOCOL.md, written a second time and in another language: what it cannot
do by that page alone, the page does not say."""
import array
import os
import socket
import struct

HELLO, SUBMIT, CANCEL, STATUS = 0x01, 0x02, 0x03, 0x04
WELCOME, STATUS_REPLY = 0x81, 0x84
START, TEXT, REASONING, TOOL_CALL, USAGE, END, ERROR = 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96


def pack(value):
    if value is None:
        return b'\xc0'
    if isinstance(value, bool):
        return b'\xc3' if value else b'\xc2'
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        return b'\xcf' + struct.pack('>Q', value) if value >= 0 else b'\xd3' + struct.pack('>q', value)
    if isinstance(value, str):
        raw = value.encode()
        return b'\xdb' + struct.pack('>I', len(raw)) + raw
    if isinstance(value, bytes):
        return b'\xc6' + struct.pack('>I', len(value)) + value
    if isinstance(value, dict):
        out = b'\xdf' + struct.pack('>I', len(value))
        return out + b''.join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return b'\xdd' + struct.pack('>I', len(value)) + b''.join(map(pack, value))
    raise TypeError(type(value))


def unpack(data, at=0):
    """(value, next position)."""
    tag = data[at]
    at += 1

    def take(form):
        return struct.unpack_from('>' + form, data, at)[0], at + struct.calcsize('>' + form)

    if tag < 0x80:
        return tag, at
    if tag >= 0xe0:
        return tag - 256, at
    if 0xa0 <= tag < 0xc0:
        return data[at:at + tag - 0xa0].decode(), at + tag - 0xa0
    if 0x80 <= tag < 0x90:
        return unpack_map(data, at, tag - 0x80)
    if 0x90 <= tag < 0xa0:
        return unpack_list(data, at, tag - 0x90)
    if tag in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[tag], at
    if tag in (0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3, 0xca, 0xcb):
        return take({0xcc: 'B', 0xcd: 'H', 0xce: 'I', 0xcf: 'Q', 0xd0: 'b', 0xd1: 'h', 0xd2: 'i',
                     0xd3: 'q', 0xca: 'f', 0xcb: 'd'}[tag])
    if tag in (0xd9, 0xda, 0xdb):
        size, at = take({0xd9: 'B', 0xda: 'H', 0xdb: 'I'}[tag])
        return data[at:at + size].decode(), at + size
    if tag in (0xc4, 0xc5, 0xc6):
        size, at = take({0xc4: 'B', 0xc5: 'H', 0xc6: 'I'}[tag])
        return bytes(data[at:at + size]), at + size
    if tag in (0xde, 0xdf):
        size, at = take({0xde: 'H', 0xdf: 'I'}[tag])
        return unpack_map(data, at, size)
    if tag in (0xdc, 0xdd):
        size, at = take({0xdc: 'H', 0xdd: 'I'}[tag])
        return unpack_list(data, at, size)
    raise ValueError(f'tag {tag:#x}')


def unpack_map(data, at, count):
    out = {}
    for _ in range(count):
        key, at = unpack(data, at)
        out[key], at = unpack(data, at)
    return out, at


def unpack_list(data, at, count):
    out = []
    for _ in range(count):
        value, at = unpack(data, at)
        out.append(value)
    return out, at


def frame(kind, request_id=0, body=None, raw=None):
    payload = raw if raw is not None else pack({} if body is None else body)
    return struct.pack('<IBBHQ', len(payload), kind, 0, 0, request_id) + payload


class Lost(Exception):
    """The daemon closed the connection."""


class Client:
    def __init__(self, path, hello=True, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer = b''
        self.region_fd = -1
        if hello:
            self.send(HELLO, 0, {'version_min': 1, 'version_max': 1, 'pid': os.getpid(),
                                 'client': 'wire.py/1', 'control': True})
            kind, _, self.welcome = self.read()
            if kind != WELCOME:
                raise AssertionError(f'no WELCOME but {kind:#x} {self.welcome}')

    def close(self):
        self.socket.close()
        if self.region_fd >= 0:
            os.close(self.region_fd)
            self.region_fd = -1

    def send(self, kind, request_id=0, body=None):
        self.socket.sendall(frame(kind, request_id, body))

    def submit(self, request_id, model, body, **envelope):
        self.send(SUBMIT, request_id, {'model': model, 'body': body, **envelope})

    def receive(self):
        data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(16))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array('i', payload[:len(payload) - len(payload) % 4])
                self.region_fd = fds[0]
        if not data:
            raise Lost()
        self.buffer += data

    def read(self):
        """(type, request id, body) of the next frame."""
        while len(self.buffer) < 16:
            self.receive()
        length, kind, _, _, request_id = struct.unpack_from('<IBBHQ', self.buffer)
        while len(self.buffer) < 16 + length:
            self.receive()
        body = unpack(self.buffer[16:16 + length])[0] if length else None
        self.buffer = self.buffer[16 + length:]
        return kind, request_id, body

    def read_to_end(self, request_id):
        """All frames of a request, the last is END or ERROR."""
        out = []
        while not out or out[-1][0] not in (END, ERROR):
            kind, got, body = self.read()
            if got == request_id or got == 0:
                out.append((kind, body))
        return out
