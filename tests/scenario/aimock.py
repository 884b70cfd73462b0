"""Starts aimock, a fake provider nobody here wrote, with the fixtures of tests/scenario/aimock.
Python's standard library only.

    directory = aimock.installed()      # None: not installed (tests/scenario/aimock/install.sh DIR)
    with aimock.Aimock(directory) as provider:
        ... provider.url ...

The prompts it knows, for both formats, streaming or not: "count to five" (a text), "weather in
Paris" (a tool call), "too fast" (429, Retry-After: 2), "cut me off" (streams 4 chunks, then the
connection breaks). Any other prompt is a 404.
"""

import glob
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "aimock", "fixtures")
TEXT = "One, two, three, four, five."


def installed():
    """The folder it is installed in: $AIMOCK, else aimock/ in meson's build folder; or None."""
    directory = os.environ.get("AIMOCK")
    if not directory:
        directory = os.path.join(os.environ.get("PROJECT_BUILD", "build"), "aimock")
    return directory if os.path.exists(_program(directory)) else None


def _program(directory):
    return os.path.join(directory, "node_modules", "@copilotkit", "aimock", "dist", "cli.js")


def _node(directory):
    """The Node that install.sh brought along where the system's is too old, else the system's."""
    own = glob.glob(os.path.join(directory, "node_modules", "node-linux-*", "bin", "node"))
    return own[0] if own else "node"


class Aimock:
    """One running process on a port the kernel chose."""

    START_SECONDS = 30
    LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:(\d+))")

    def __init__(self, directory, fixtures=FIXTURES):
        self.command = [_node(directory), _program(directory), "-p", "0", "-h", "127.0.0.1",
                        "-f", fixtures, "--log-level", "info"]
        self.process = self.url = self.port = None

    def __enter__(self):
        self.output = tempfile.NamedTemporaryFile(prefix="aimock-")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except Exception:
            self.__exit__()
            raise
        return self

    def _wait(self):
        end = time.monotonic() + self.START_SECONDS
        while True:
            text = self.log()
            found = self.LISTENING.search(text)
            if found:
                self.url, self.port = found.group(1), int(found.group(2))
                self.journal()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("aimock did not start: " + text)
            time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def log(self):
        with open(self.output.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def journal(self):
        """The requests that reached it, oldest first."""
        with urllib.request.urlopen(self.url + "/__aimock/journal", timeout=10) as response:
            return json.load(response)
