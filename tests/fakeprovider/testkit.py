"""What the fake provider's own tests share: clients (http.client, curl, bare sockets), readers of
its answers, and the TAP loop. Independent of the daemon and its parsers on purpose."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
from fakeprovider import FakeProvider, find_program  # noqa: E402

TIMEOUT = 20
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
CA_DIR = tempfile.TemporaryDirectory(prefix="fakeprovider-ca-")
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def holds(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(repr, what)) or "does not hold")


def provider(**options):
    return FakeProvider(ca_dir=CA_DIR.name, **options)


def body_of(keys="", stream=False, prompt="what is a budget?", **more):
    model = "fake?" + keys if keys else "fake"
    return json.dumps({"model": model, "stream": stream, "max_tokens": 100,
                       "messages": [{"role": "user", "content": prompt}], **more})


def headers_of(path, key="sk-test", **more):
    headers = {"content-type": "application/json"}
    if path == ANTHROPIC:
        headers.update({"x-api-key": key, "anthropic-version": "2023-06-01"})
    else:
        headers["authorization"] = "Bearer " + key
    headers.update(more)
    return headers


def trusting(p):
    return ssl.create_default_context(cafile=p.ca_file)


def connect(p, tls=False):
    if tls:
        return http.client.HTTPSConnection("localhost", p.tls_port, timeout=TIMEOUT,
                                           context=trusting(p))
    return http.client.HTTPConnection("127.0.0.1", p.plain_port, timeout=TIMEOUT)


def ask_on(connection, keys="", path=OPENAI, headers=None, **more):
    connection.request("POST", path, body_of(keys, **more).encode(),
                       headers or headers_of(path))
    response = connection.getresponse()
    return response, response.read()


def ask(p, keys="", path=OPENAI, tls=False, headers=None, **more):
    with contextlib.closing(connect(p, tls)) as connection:
        return ask_on(connection, keys, path, headers, **more)


def raw_request(keys="", path=OPENAI, extra="", **more):
    body = body_of(keys, **more).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers_of(path).items()]
    return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode() + body


def dial(p):
    s = socket.create_connection(("127.0.0.1", p.plain_port), timeout=TIMEOUT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def receive_all(s):
    """All bytes until the end; the end's error, or None for a clean one."""
    parts = []
    try:
        while True:
            part = s.recv(65536)
            if not part:
                return b"".join(parts), None
            parts.append(part)
    except OSError as e:
        return b"".join(parts), e


def receive_until(s, end):
    data = b""
    while end not in data:
        part = s.recv(65536)
        holds(part, "ended before", end, data)
        data += part
    return data


def exchange_raw(p, keys="", **more):
    with dial(p) as s:
        s.sendall(raw_request(keys, **more))
        return receive_all(s)


def split_head(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def events(body):
    """(event name or None, data) per event of an SSE body."""
    found = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
        if data:
            found.append((name, "\n".join(data)))
    return found


def chunks(body):
    return [json.loads(data) for _, data in events(body) if data != "[DONE]"]


def deltas(body, field="content"):
    found = [c["choices"][0]["delta"].get(field) for c in chunks(body) if c["choices"]]
    return [d for d in found if d]


def anthropic_deltas(body, kind="text_delta", field="text"):
    return [c["delta"][field] for c in chunks(body)
            if c["type"] == "content_block_delta" and c["delta"]["type"] == kind]


def tls_socket(p):
    plain = socket.create_connection(("127.0.0.1", p.tls_port), timeout=TIMEOUT)
    return trusting(p).wrap_socket(plain, server_hostname="localhost")


def curl(p, keys="", tls=False, **more):
    url = (p.tls_url if tls else p.url) + OPENAI
    return subprocess.run(["curl", "-sS", "--max-time", str(TIMEOUT), "--cacert", p.ca_file,
                           "-H", "content-type: application/json", "--data-binary", "@-", url],
                          input=body_of(keys, **more).encode(), capture_output=True,
                          timeout=TIMEOUT * 2, check=False)


def run_tests():
    print(f"1..{len(TESTS)}")
    failed = 0
    with provider() as shared:
        for number, function in enumerate(TESTS, 1):
            name = function.__name__
            try:
                function(shared)
                print(f"ok {number} - {name}", flush=True)
            except Exception:  # whatever it is, the other tests go on
                failed += 1
                for line in traceback.format_exc().splitlines():
                    print("# " + line[:2000])
                print(f"not ok {number} - {name}", flush=True)
    sys.exit(failed > 0)
