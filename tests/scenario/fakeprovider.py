"""Starts the fake provider for a test and reads what it saw. Python's standard library only.

    with FakeProvider(log=True, rate="10/s", burst=5) as provider:
        ... provider.url, provider.tls_url, provider.ca_file ...
        provider.arrivals()          # the log's arrival lines, as dicts
        provider.set_script("*: status=503; times=2")
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time


def find_program():
    """The built program: $FAKEPROVIDER, else in meson's build folder."""
    explicit = os.environ.get("FAKEPROVIDER")
    if explicit:
        return explicit
    build = os.environ.get("PROJECT_BUILD", "build")
    return os.path.join(build, "tests", "fakeprovider", "fakeprovider")


class FakeProvider:
    """One running process. The keyword arguments are its options, by their names with '_';
    script takes the rules themselves, log and log_bodies take True."""

    START_SECONDS = 20

    def __init__(self, tls=True, ca_dir=None, program=None, **options):
        self.directory = tempfile.mkdtemp(prefix="fakeprovider-")
        self.ca_dir = ca_dir or os.path.join(self.directory, "ca")
        self.ca_file = os.path.join(self.ca_dir, "ca.pem")
        self.log_file = os.path.join(self.directory, "arrivals.jsonl")
        self.errors_file = os.path.join(self.directory, "stderr")
        self.process = None
        self.plain_port = self.tls_port = None
        self._command = [program or find_program(), "--quiet"]
        self._add_options(tls, options)

    def _add_options(self, tls, options):
        self._ports_file = os.path.join(self.directory, "ports")
        self._command += ["--ports-file", self._ports_file]
        if tls:
            self._command += ["--tls-listen", "127.0.0.1:0", "--ca-dir", self.ca_dir]
        if options.pop("log", False) or options.get("log_bodies"):
            self._command += ["--log", self.log_file]
        script = options.pop("script", None)
        if script is not None:
            path = os.path.join(self.directory, "script")
            with open(path, "w", encoding="utf-8") as f:
                f.write(script)
            self._command += ["--script", path]
        for name, value in options.items():
            if value is True:
                self._command.append("--" + name.replace("_", "-"))
            elif value not in (None, False):
                self._command += ["--" + name.replace("_", "-"), str(value)]

    def start(self):
        with open(self.errors_file, "wb") as errors:
            self.process = subprocess.Popen(self._command, stderr=errors)
        end = time.monotonic() + self.START_SECONDS
        while not os.path.exists(self._ports_file):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the fake provider did not start: " + self.errors())
            time.sleep(0.01)
        with open(self._ports_file, encoding="ascii") as f:
            ports = dict(line.split() for line in f)
        self.plain_port = int(ports["plain"])
        self.tls_port = int(ports["tls"]) if "tls" in ports else None
        return self

    def stop(self, how=signal.SIGTERM):
        """Ends the process; its exit status (negative: the signal that ended it)."""
        status = None
        if self.process:
            self.process.send_signal(how)
            try:
                status = self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                status = self.process.wait()
            self.process = None
        return status

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        self.remove()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.plain_port}"

    @property
    def tls_url(self):
        return f"https://localhost:{self.tls_port}"

    def errors(self):
        with open(self.errors_file, encoding="utf-8", errors="replace") as f:
            return f.read()

    def log(self):
        """Every line of the log; a line is only ever written whole. A request's end is logged
        after its last byte went out: asking for the stats makes sure that this has happened."""
        if self.process:
            self.stats()
        with open(self.log_file, encoding="utf-8", errors="replace") as f:
            return [json.loads(line) for line in f]

    def arrivals(self):
        return [line for line in self.log() if line["event"] == "arrival"]

    def ends(self):
        return [line for line in self.log() if line["event"] == "end"]

    def _admin(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.plain_port, timeout=10)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer.get("error"))
        return answer

    def stats(self):
        return self._admin("GET", "/_fake/stats")

    def set_script(self, rules):
        return self._admin("POST", "/_fake/script", rules.encode())

    def reset(self):
        return self._admin("POST", "/_fake/reset")

    def wait_stats(self, condition, seconds=10):
        """Waits until condition(stats) holds; the stats, or an AssertionError."""
        end = time.monotonic() + seconds
        while True:
            stats = self.stats()
            if condition(stats):
                return stats
            if time.monotonic() > end:
                raise AssertionError(f"never came about: {stats}")
            time.sleep(0.01)
