"""A terminal for a test: a pty, and a model of the screen behind it that knows exactly the control
sequences that the tool may use. Anything else it is sent is kept in .strange.

    with Terminal(command, 100, 30, environment) as terminal:
        terminal.wait(lambda screen: 'limits' in screen.text())
        terminal.type('q')
"""
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata

# The second: one that another cuts short. What has not come whole is none yet.
SEQUENCE = re.compile(r'\x1b(?:\[([?0-9;]*)([@-~])|\[[?0-9;]*(?=[^?0-9;@-~])|[^\[])', re.S)


class Screen:
    """What is on it, by bytes. answers: what the terminal would type by itself."""

    def __init__(self, columns, lines):
        self.decoder = codecs.getincrementaldecoder('utf-8')()
        self.is_alternate = self.hides_cursor = False
        self.wraps = True
        self.strange, self.answers, self.rest = [], [], ''
        self.asked = 0
        self.is_whole = True  # no picture is half drawn: each ends with a question
        self.colors = set()
        self.resize(columns, lines)

    def resize(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.clear()

    def clear(self):
        self.cell = [[' '] * self.columns for _ in range(self.lines)]
        self.row = self.column = 0

    def rows(self):
        return [''.join(row).rstrip() for row in self.cell]

    def text(self):
        return '\n'.join(self.rows())

    def feed(self, data):
        text = self.rest + self.decoder.decode(data)
        at = 0
        while at < len(text):
            if text[at] != '\x1b':
                self.put(text[at])
                at += 1
                continue
            found = SEQUENCE.match(text, at)
            if not found:
                break
            self.control(found[0], found[1], found[2])
            at = found.end()
        self.rest = text[at:]

    def put(self, character):
        if unicodedata.category(character) in ('Cc', 'Cf', 'Zl', 'Zp', 'Cs'):
            self.strange.append(character)
            return
        self.is_whole = False
        width = 2 if unicodedata.east_asian_width(character) in 'WF' else 1
        if unicodedata.combining(character):
            return
        if self.column + width > self.columns:
            self.strange.append(f'beyond the end of a line: {character}')
            return
        for cell in [character, ''][:width]:
            self.cell[self.row][self.column] = cell
            self.column += 1

    def control(self, whole, parameters, final):
        if final == 'H':
            row, column = ([int(n) for n in parameters.split(';')] if parameters else [1, 1])
            if not (1 <= row <= self.lines and 1 <= column <= self.columns):
                self.strange.append(whole)
                return
            self.row, self.column = row - 1, column - 1
        elif final == 'K' and not parameters:
            self.cell[self.row][self.column:] = [' '] * (self.columns - self.column)
            self.is_whole = False
        elif final == 'J' and parameters == '2':
            at = self.row, self.column
            self.clear()
            self.row, self.column = at
            self.is_whole = False
        elif final == 'm':
            self.colors.add(parameters)
        elif final == 'n' and parameters == '5':
            self.asked += 1
            self.is_whole = True
            self.answers.append(b'\x1b[0n')
        elif final in ('h', 'l') and parameters in ('?1049', '?25', '?7'):
            on = final == 'h'
            if parameters == '?1049':
                self.is_alternate = on
            elif parameters == '?25':
                self.hides_cursor = not on
            else:
                self.wraps = on
        else:
            self.strange.append(whole)


class Terminal:
    def __init__(self, command, columns, lines, environment, answers=True):
        self.screen = Screen(columns, lines)
        self.does_answer = answers
        self.bytes = b''
        self.master, self.slave = pty.openpty()
        self.size(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        environment = {'TERM': 'xterm-256color', 'LC_ALL': 'C.UTF-8', **environment}

        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, env=environment, preexec_fn=take_terminal)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            for row in self.screen.rows():
                print('# screen:', row)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def size(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))

    def resize(self, columns, lines):
        """What a terminal does: its screen is of another size first, then it tells."""
        self.pump()
        self.screen.resize(columns, lines)
        self.size(columns, lines)

    def read(self):
        """What there is to be read now, without drawing it."""
        out = b''
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            out += piece
        self.bytes += out
        return out

    def pump(self):
        data = self.read()
        self.screen.feed(data)
        for answer in self.screen.answers if self.does_answer else []:
            os.write(self.master, answer)
        self.screen.answers.clear()
        return data

    def wait(self, condition, what='the screen shows it', seconds=30):
        """Until it is true, of a whole picture; a terminal that never answers is not asked for long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.pump()
            value = (self.screen.is_whole or not self.does_answer) and condition(self.screen)
            if value:
                return value
            time.sleep(0.01)
        raise AssertionError(f'{what} did not come true within {seconds} s')

    def wait_text(self, pattern, seconds=30):
        return self.wait(lambda screen: re.search(pattern, screen.text(), re.M), repr(pattern), seconds)

    def wait_no_text(self, pattern, seconds=30):
        self.wait(lambda screen: not re.search(pattern, screen.text(), re.M), 'no ' + repr(pattern), seconds)

    def type(self, text):
        os.write(self.master, text.encode())

    def row_of(self, pattern):
        """The first line of the screen that matches."""
        return next((row for row in self.screen.rows() if re.search(pattern, row)), None)

    def wait_end(self, seconds=30):
        """Its exit status; the screen as it left it."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.pump()
            time.sleep(0.01)
        self.pump()
        return self.process.poll()

    def is_as_before(self):
        return (termios.tcgetattr(self.slave) == self.before and not self.screen.is_alternate and
                not self.screen.hides_cursor and self.screen.wraps)

    def is_stopped(self):
        with open(f'/proc/{self.process.pid}/stat', encoding='utf-8') as file:
            return file.read().rsplit(')', 1)[1].split()[0] == 'T'

    def signal(self, number):
        self.process.send_signal(number)


UP, DOWN, PAGE_DOWN, PAGE_UP, HOME, END = (
    '\x1b[A', '\x1b[B', '\x1b[6~', '\x1b[5~', '\x1b[H', '\x1b[F')
INTERRUPT, SUSPEND, BACKSPACE, ESCAPE = '\x03', '\x1a', '\x7f', '\x1b'
__all__ = ['Terminal', 'Screen', 'UP', 'DOWN', 'PAGE_DOWN', 'PAGE_UP', 'HOME', 'END', 'INTERRUPT',
           'SUSPEND', 'BACKSPACE', 'ESCAPE', 'signal']
