#!/usr/bin/env python3
"""llmkit top through a terminal, and the tools that list and act, as users see them."""
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata

import screen
import wire
from clients import Member
from harness import BUILD, SOURCE, Host, clean_environment
from screen import Terminal
from tap import check, equal, main, wait_for
from test_observers import tool_as_nobody

COMMAND, DONE = 0x06, 0x85
SLOW = 'fake?chunks=4000&delay_ms=50'
LIMITS = [
    {'provider': 'one', 'requests': '100/day', 'tokens': '100k/day', 'concurrency': 4,
     'burst': {'requests': 10, 'tokens': 100000}},
    {'user': 'bob', 'money': '5 USD/day'},
]
TEMPLATES = {'per_user': {'requests': '20/day', 'burst': 20}}


def configuration(host, one, two, **more):
    sections = {
        'providers': [host.provider('openai', one, name='one'), host.provider('openai', two, name='two')],
        'models': [{'name': 'm', 'provider': 'one', 'price': {'input': 1, 'output': 2}, 'context': 100000,
                    'capabilities': ['tools', 'streaming']}],
        'routes': [{'name': 'both', 'strategy': 'order', 'targets': ['m', 'two/n']}],
        'limits': LIMITS,
        'templates': TEMPLATES,
    }
    sections.update(more)
    host.configure(**sections)


class World:
    """A host with two providers, and what there is to see."""

    def __init__(self, **more):
        self.host = Host()
        self.more = more

    def __enter__(self):
        self.host.__enter__()
        try:
            self.one, self.two = self.host.fake(), self.host.fake()
            configuration(self.host, self.one, self.two, **self.more)
            self.host.start()
        except BaseException:
            self.host.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error):
        self.host.__exit__(*error)

    def top(self, columns=120, lines=40, *arguments, answers=True, interval='0.1', **environment):
        return Terminal(self.host.tool_command('top', '--interval', interval, *arguments), columns, lines,
                        clean_environment(LLMKIT_SOCKET=self.host.socket, **environment), answers)

    def ask(self, *arguments):
        return self.host.chat('hello', *arguments)[-1]['type']

    def background(self, *arguments):
        """A request that goes on until the host is gone."""
        process = subprocess.Popen(
            self.host.tool_command('chat', *arguments, 'hello'), stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, env=clean_environment(LLMKIT_SOCKET=self.host.socket))
        self.host.workers.append(process)
        return process

    def fail(self, target='two/n', times=6):
        self.two.set_script('*: status=500')
        for _ in range(times):
            self.ask('-m', target)


def run(host, *arguments, code=0, **environment):
    out = host.tool(*arguments, **environment)
    equal(out.returncode, code, f'{arguments}: {out.stdout} {out.stderr}')
    return out.stdout if code == 0 else out.stderr


def section(terminal, name):
    """Lines of the section: those below its titles, up to the next."""
    rows, out, inside = terminal.screen.rows(), [], False
    for row in rows[:-1]:
        found = re.match(r' \d (\w+) ', row)
        if found:
            inside = found[1] == name
        elif inside and row:
            out.append(row)
    return out[1:]


def focus(terminal):
    """Of the section that gets the most lines there is no mark but the colour: found by the bytes."""
    return re.findall(rb'\x1b\[7m \d (\w+) ', terminal.bytes)[-1].decode()


# ---- top: what it shows ----

def test_top_shows_limits_targets_participants_and_events():
    with World() as world, world.top(140, 50) as top:
        top.wait_text(r'^llmkit top running pid %d up ' % world.host.daemon.pid)
        for label in ('provider one requests', 'provider one tokens', 'provider one concurrency',
                      'user bob money'):
            top.wait_text('^' + label)
        equal(top.row_of('^provider one requests').split()[3:6], ['100/day', '·' * 16, '10'], 'fresh')
        equal([world.ask('-m', 'm', '-u', 'bob') for _ in range(3)], ['end'] * 3, 'answers')
        top.wait_text(r'^provider one requests +100/day █{5}·{11} +7 ')
        top.wait_text(r'^user bob requests +20/day ██?█?·+ +17 ')
        top.wait_text(r'^provider one tokens +100k/day █·+ +9\S+k ')
        check(re.search(r'\$5\.00/day', top.row_of('^user bob money')), 'money')
        top.wait_text(r'^one/m +closed +0 +[\d.]+ +0\.0% +\d+ [um]s +\d+ [um]s')
        top.wait_text('^one/m .*[▁▂▃▄▅▆▇█]')
        top.wait_text(r'participant pid \d+: came')
        world.background('-m', 'one/' + SLOW, '-u', 'eve')
        top.wait_text(r'active 1\b')
        top.wait_text(r'flight 1\b')
        top.wait_text(r'^one/fake\S* +closed +1 ')
        top.wait_text(r'^provider one tokens +100k/day █+▒+·+ ')
        top.wait_text(r'^provider one concurrency +4 at once ▒{4}·{12} +3 ')
        top.wait(lambda s: any(r.split()[3] != '0' for r in section(top, 'participants')), 'a hold')
        equal(top.screen.strange, [], 'unknown sequences')


def test_top_shows_a_breaker_open_close_and_a_pause():
    with World() as world, world.top() as top:
        top.wait_text('^two/n +closed')
        world.fail()
        top.wait_text(r'^two/n +open +in ')
        top.wait_text(r'^two/n .* 100\.0%')
        top.wait_text(r'breaker two/n: closed -> open, failures in a row, again after ')
        run(world.host, 'breakers', 'close', 'two/n')
        top.wait_text(r'breaker two/n: open -> closed, by hand')
        top.wait_text(r'^two/n +closed')
        run(world.host, 'breakers', 'open', 'two/n')
        top.wait_text(r'^two/n +open +by hand')
        world.one.set_script('*: status=429; retry_after=600')
        equal(world.ask('-m', 'm'), 'error', 'limited by the provider')
        top.wait_text(r'^one(/m)? +closed +paused (9|10) m ')


def test_top_rates_follow_what_happens():
    with World(limits=[], templates={}) as world, world.top() as top:
        top.wait_text(r'^req/s 0 ')
        for _ in range(100):
            if re.search(r'^req/s [1-9]', top.screen.text(), re.M):
                break
            world.ask('-m', 'm')
            top.pump()
        else:
            raise AssertionError('no rate')
        top.wait_text(r'^req/s 0 ')


def test_top_says_that_the_daemon_died_and_came_back():
    with World() as world, world.top() as top:
        top.wait_text(r'^llmkit top running pid %d ' % world.host.daemon.pid)
        first = world.host.daemon.pid
        world.host.kill()
        top.wait_text(r'^llmkit top DEAD pid %d, .* ago' % first)
        check(top.row_of('^provider one requests'), 'limits stay to be seen')
        world.host.start()
        top.wait_text(r'^llmkit top running pid %d ' % world.host.daemon.pid)
        world.host.kill(signal.SIGTERM)
        top.wait_text('^llmkit top stopped ')


def test_top_follows_to_a_new_region():
    with World() as world, world.top() as top:
        top.wait_text('^provider one requests')
        world.host.kill()
        real = os.path.realpath(world.host.region)
        for name in {real, world.host.region}:
            os.unlink(name)
        top.wait_text("region's file is gone")
        check(top.row_of('^provider one requests'), 'what was there stays to be seen')
        configuration(world.host, world.one, world.two, limits=[{'provider': 'two', 'requests': '7/min'}])
        world.host.start()
        top.wait_text(r'the region was replaced by a new one')
        top.wait_text('^provider two requests +7/min')
        top.wait_no_text('^provider one requests')
        top.wait_no_text('is gone')


# ---- top: keys ----

def names_of(terminal, name):
    return [row.split()[0] for row in section(terminal, name)]


def users(count):
    return [{'user': f'u{i:03}', 'requests': '10/day', 'burst': 1 + i} for i in range(count)]


def test_top_keys_choose_a_section():
    with World() as world, world.top() as top:
        top.wait_text('^provider one requests')
        equal(focus(top), 'limits', 'at first')
        for key, name in (('2', 'targets'), ('3', 'participants'), ('4', 'events'), ('1', 'limits'),
                          ('\t', 'targets'), ('\x1b[Z', 'limits'), ('\x1b[Z', 'events'), ('\t', 'limits')):
            top.type(key)
            top.wait(lambda s, wanted=name: focus(top) == wanted, name)


def test_top_keys_sort_and_reverse():
    with World(limits=users(5), templates={}) as world, world.top() as top:
        top.wait_text('^user u000 requests')
        order = [f'user u{i:03} requests' for i in range(5)]

        def labels():
            return [' '.join(row.split()[:3]) for row in section(top, 'limits')]

        equal(labels(), order, 'by label')
        top.type('r')
        top.wait(lambda s: labels() == order[::-1], 'by label, reversed')
        top.type('s')
        top.wait_text('USEDv')
        top.type('s')
        top.wait_text(r'LEFT\^')
        top.wait(lambda s: labels() == order, 'the least left first')
        top.type('r')
        top.wait(lambda s: labels() == order[::-1], 'the most left first')
        for title in (r'FULL INv', 'ADM/Sv', 'REJ/Sv', r'LIMIT\^'):
            top.type('s')
            top.wait_text(title)


def test_top_keys_filter():
    with World(limits=users(30), templates={}) as world, world.top() as top:
        top.wait_text('^user u000 requests')
        top.type('/')
        top.type('U01')
        top.wait_text('^/U01')
        top.wait(lambda s: len(section(top, 'limits')) == 10, 'ten have it, whatever the case')
        top.type('5é' + screen.BACKSPACE)
        top.wait(lambda s: names_of(top, 'limits') and len(section(top, 'limits')) == 1, 'one')
        top.type('\r')
        top.wait_text(r'with "U015"')
        top.type('/')
        top.wait_text('^/U015')
        top.type(screen.ESCAPE)
        top.wait_text('^user u000 requests')
        check(not top.row_of('with "'), 'no filter')
        top.type('/q')
        top.wait_text('^/q')
        equal(top.process.poll(), None, 'typed text is no command')


def test_top_keys_scroll():
    with World(limits=users(100), templates={}) as world, world.top(100, 24) as top:
        top.wait_text('^user u000 requests')
        top.type(screen.DOWN * 3)
        top.wait(lambda s: section(top, 'limits')[0].startswith('user u003'), 'three down')
        top.type(screen.UP)
        top.wait(lambda s: section(top, 'limits')[0].startswith('user u002'), 'one up')
        shown = len(section(top, 'limits'))
        top.type(screen.PAGE_DOWN)
        top.wait(lambda s: section(top, 'limits')[0].startswith(f'user u{2 + shown:03}'), 'a page')
        top.wait_text(rf'{3 + shown}-{2 + 2 * shown} of 100')
        top.type(screen.END)
        top.wait(lambda s: section(top, 'limits')[-1].startswith('user u099'), 'the last is the last')
        top.type(screen.DOWN * 5)
        top.type(screen.PAGE_UP)
        top.wait(lambda s: section(top, 'limits')[-1].startswith(f'user u{99 - shown:03}'), 'a page up')
        top.type(screen.HOME)
        top.wait(lambda s: section(top, 'limits')[0].startswith('user u000'), 'the first')


def test_top_keys_pause_interval_and_help():
    with World() as world, world.top() as top:
        top.wait_text('^provider one requests')
        top.type('p')
        top.wait_text(' paused$')
        equal(world.ask('-m', 'm'), 'end')
        top.type('2')
        top.wait(lambda s: focus(top) == 'targets', 'keys work')
        check(re.search(r' 10 ', top.row_of('^provider one requests')), 'what is shown stays')
        top.type('p')
        top.wait_text(r'^provider one requests .* 9 ')
        check(not top.row_of(' paused$'), 'goes on')
        top.wait_text(r'^every 100 ms')
        top.type('+')
        top.wait_text('^every 200 ms')
        top.type('++')
        top.wait_text(r'^every 1\.0 s')
        top.type('---')
        top.wait_text('^every 100 ms')
        top.type('?')
        top.wait_text('any key goes back')
        top.type('x')
        top.wait_no_text('any key goes back')
        top.wait_text('^provider one requests')


# ---- top: the terminal ----

def test_top_fits_every_size():
    with World(limits=users(50)) as world, world.top(100, 30) as top:
        for columns, lines in ((40, 10), (200, 60), (100, 30), (1, 1), (20, 3), (80, 24)):
            top.resize(columns, lines)
            if lines >= 10:
                top.wait_text('^user u000 requests')
                top.wait(lambda s: s.rows()[-1].startswith('every'), 'keys at the bottom')
                top.wait(lambda s, n=lines: s.text().count('user u') >= n // 3, 'the room is used')
            else:
                top.wait(lambda s: s.text().strip(), 'something')
        equal(top.screen.strange, [], 'nothing beyond the screen')
        top.resize(40, 10)
        top.wait_text('^user u000 requests')
        top.type('2')
        top.wait_text('^two/n')
        equal(top.screen.strange, [], 'nothing beyond the screen')


def test_top_redraws_only_what_changed():
    with World() as world, world.top() as top:
        top.wait_text('^two/n')
        top.wait(lambda s: s.asked > 3, 'frames')
        top.bytes = b''
        before = top.screen.asked
        top.wait(lambda s: s.asked > before + 5, 'more frames')
        rows = set(re.findall(rb'\x1b\[(\d+);1H', top.bytes))
        check(b'1' in rows, 'the time goes on')
        check(len(rows) <= 6, f'rows drawn while nothing happens: {rows}')


def test_top_never_queues_frames_for_a_slow_terminal():
    with World() as world, world.top(interval='0.05') as top:
        top.wait(lambda s: s.asked > 5, 'frames')
        top.pump()
        time.sleep(2)
        late = top.read()
        check(late.count(b'\x1b[5n') <= 1, f'{late.count(bytes([27]) + b"[5n")} frames were queued')
        top.screen.feed(late)
        before = top.screen.asked
        top.wait(lambda s: s.asked > before + 3, 'goes on when the terminal does')


def test_top_works_with_a_terminal_that_never_answers():
    with World() as world, world.top(answers=False) as top:
        top.wait_text('^two/n')
        equal(world.ask('-m', 'm'), 'end')
        top.wait_text(r'^provider one requests .* 9 ')
        world.ask('-m', 'm')
        top.wait_text(r'^provider one requests .* 8 ')
        world.ask('-m', 'm')
        top.wait_text(r'^provider one requests .* 7 ')
        top.type('q')
        equal(top.wait_end(), 0)
        equal(top.screen.asked, 1, 'it asked, waited, and gave it up')


def test_top_gives_the_terminal_back():
    with World() as world:
        for key, number, code in (('q', 0, 0), (screen.INTERRUPT, 0, 130), (None, signal.SIGTERM, -signal.SIGTERM),
                                  (None, signal.SIGHUP, -signal.SIGHUP)):
            with world.top() as top:
                top.wait_text('^two/n')
                check(top.screen.is_alternate and top.screen.hides_cursor, 'its own screen')
                check(not top.is_as_before(), 'keys one by one')
                if key:
                    top.type(key)
                else:
                    top.signal(number)
                equal(top.wait_end(), code, f'exit of {key or number}')
                check(top.is_as_before(), 'as it was before')
                equal(top.screen.strange, [], 'unknown sequences')


def test_top_is_stopped_and_goes_on():
    with World() as world, world.top() as top:
        for how in ('key', 'signal'):
            top.wait_text('^two/n')
            if how == 'key':
                top.type(screen.SUSPEND)
            else:
                top.signal(signal.SIGTSTP)
            top.wait(lambda s: top.is_stopped(), 'stopped')
            top.pump()
            check(top.is_as_before(), 'the shell has its terminal')
            top.screen.clear()
            top.signal(signal.SIGCONT)
            top.wait(lambda s: s.is_alternate, 'goes on')
            top.wait_text('^two/n')
        top.type('q')
        equal(top.wait_end(), 0)
        check(top.is_as_before(), 'as it was before')


def test_top_is_stopped_while_its_terminal_answers():
    with World() as world, world.top(interval='0.05') as top:
        for _ in range(40):
            top.wait_text('^two/n')
            while not top.screen.answers:
                top.screen.feed(top.read())
            top.screen.answers.clear()
            # Both at once.
            os.write(top.master, b'\x1b[0n')
            top.signal(signal.SIGTSTP)
            wait_for(top.is_stopped, what='stopped')
            top.screen.clear()
            top.signal(signal.SIGCONT)


def test_top_finishes_the_picture_before_it_goes():
    leave = b'\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l'
    with World(limits=users(300), templates={}) as world, world.top(1000, 250) as top:
        top.wait_text('^user u000 requests')
        # Another picture, which is more than a terminal that does not read has room for.
        top.type('r')
        time.sleep(0.5)
        top.type('\x1b[0n')
        time.sleep(0.5)
        top.bytes = b''
        top.signal(signal.SIGTSTP)
        wait_for(lambda: top.read() == b'' and leave in top.bytes, what='all of it')
        check(len(top.bytes) > 65536, len(top.bytes))
        check(top.bytes.endswith(b'\x1b[5n' + leave), top.bytes[-100:])


def test_top_gives_the_terminal_back_when_the_file_is_cut():
    with World() as world, world.top() as top:
        top.wait_text('^two/n')
        # Nobody else maps it any more.
        world.host.kill()
        os.truncate(world.host.region, 4096)
        equal(top.wait_end(), -signal.SIGBUS, 'what whoever may write the file can do')
        check(top.is_as_before(), 'as it was before')


def test_top_speaks_ascii_where_it_must():
    def is_ascii(text):
        return all(ord(c) < 127 for c in text)

    with World() as world:
        world.background('-m', 'one/' + SLOW)
        wait_for(lambda: world.host.dump()['holds'], what='a hold')
        world.ask('-m', 'm')
        for environment in ({'LC_ALL': 'C'}, {'TERM': 'dumb', 'LC_ALL': 'C.UTF-8'}):
            text = run(world.host, 'top', '--once', '--interval', '0.1', **environment)
            check(is_ascii(text), text)
            check(re.search(r'^provider one tokens +100k/day #*=+\.+', text, re.M), text)
        text = run(world.host, 'top', '--once', '--interval', '0.1', LC_ALL='C.UTF-8')
        check(re.search(r'^provider one tokens +100k/day █*▒+·+', text, re.M), text)
        with world.top(LC_ALL='C') as top:
            top.wait_text(r'^provider one tokens +100k/day #*=+\.+')
            check(is_ascii(top.screen.text()), 'screen')
            check(top.screen.colors - {''}, 'in colours')
        with world.top(NO_COLOR='1') as top:
            top.wait_text('^two/n')
            equal(top.screen.colors - {''}, set(), 'no colours')


def test_top_needs_a_terminal_to_draw_on():
    with World() as world:
        check('--once' in run(world.host, 'top', code=1), 'says what to do')
        with world.top(TERM='dumb') as top:
            equal(top.wait_end(), 1)
            check('--once' in top.screen.text(), top.screen.text())
            check(b'\x1b' not in top.bytes, 'no sequence')
        for bad in ('0', 'x', '1e9', '-1', 'nan'):
            check('--interval' in run(world.host, 'top', '--once', '--interval', bad, code=2), bad)
        missing = os.path.join(world.host.folder, 'nothing')
        check('No such file' in run(world.host, 'top', '--once', '--region', missing, code=1), 'missing')


# ---- top: for programs ----

def test_top_once_is_one_picture_of_any_width():
    with World() as world:
        world.ask('-m', 'm', '-u', 'alice')
        for columns in (None, '40', '60', '200'):
            environment = {'COLUMNS': columns} if columns else {}
            text = run(world.host, 'top', '--once', '--interval', '0.1', LC_ALL='C.UTF-8', **environment)
            width = max(len(line) for line in text.splitlines())
            equal(width, int(columns or 100), 'width')
            check('\x1b' not in text, 'no control codes')
            for word in ('llmkit top running', ' 1 limits  5', ' 2 targets  4', ' 3 participants', ' 4 events',
                         'provider one conc', 'two/n'):
                check(word in text, (word, text))


def test_top_json_is_complete():
    with World() as world:
        world.ask('-m', 'm', '-u', 'alice')
        world.fail()
        top = json.loads(run(world.host, 'top', '--once', '--json', '--interval', '0.1'))
        equal((top['daemon']['state'], top['daemon']['pid']), ('running', world.host.daemon.pid))
        equal(set(top['counters']), set(world.host.dump()['counters']), 'counters')
        equal(set(top['rates']), set(top['counters']), 'rates')
        listed = json.loads(run(world.host, 'limits', '--json'))['limits']
        equal({row['label'] for row in top['limits']}, {row['label'] for row in listed}, 'limits')
        for row in top['limits']:
            other = next(r for r in listed if r['label'] == row['label'])
            equal(set(other) - set(row), set(), 'what the list has, this has')
            for name in ('limit', 'window_ns', 'burst', 'held', 'admitted', 'rejected', 'template'):
                equal(row[name], other[name], name)
        listed = json.loads(run(world.host, 'breakers', '--json'))['breakers']
        equal({(r['target'], r['state'], r['requests'], r['errors']) for r in top['targets']},
              {(r['target'], r['state'], r['requests'], r['errors']) for r in listed}, 'targets')
        for row in top['targets']:
            equal(set(listed[0]) - set(row), set(), 'what the list has, this has')
        equal({r['pid'] for r in top['participants']},
              {r['pid'] for r in world.host.dump()['participants']}, 'participants')
        check([e for e in top['events'] if e['kind'] == 'breaker' and 'two/n' in e['text'] and
               e['why'] == 'failures in a row'], top['events'])
        equal((top['events_lost'], top['in_flight']), (0, 0))
        world.background('-m', 'one/' + SLOW)
        wait_for(lambda: in_flight(world.host) == 1, what='the call, once and not for its provider too')
        world.one.set_script('*: status=429; retry_after=600')
        equal(world.ask('-m', 'm'), 'error')
        top = json.loads(run(world.host, 'top', '--once', '--json', '--interval', '0.1'))
        check('pause_target' in [e['kind'] for e in top['events']], top['events'])
        check(all(e['kind'] != 'unknown' for e in top['events']), top['events'])


def in_flight(host):
    return json.loads(run(host, 'top', '--once', '--json', '--interval', '0.05'))['in_flight']


def test_top_json_goes_on_and_tells_each_event_once():
    with World() as world:
        process = subprocess.Popen(
            world.host.tool_command('top', '--json', '--interval', '0.1'), stdout=subprocess.PIPE, text=True,
            env=clean_environment(LLMKIT_SOCKET=world.host.socket))
        world.host.workers.append(process)
        lines = [json.loads(process.stdout.readline())]
        world.fail(times=5)
        while not any('two/n' in e['text'] for e in lines[-1]['events']):
            lines.append(json.loads(process.stdout.readline()))
        numbers = [e['number'] for line in lines for e in line['events']]
        equal(numbers, list(range(1, len(numbers) + 1)), 'each once, none left out')
        check(all(line['elapsed'] > 0 for line in lines), 'each is an interval')
        times = [line['now_ns'] for line in lines]
        equal(times, sorted(set(times)), 'one after the other')
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_top_json_loses_no_event_of_a_busy_interval():
    with World() as world:
        process = subprocess.Popen(
            world.host.tool_command('top', '--json', '--interval', '0.1'), stdout=subprocess.PIPE, text=True,
            env=clean_environment(LLMKIT_SOCKET=world.host.socket))
        world.host.workers.append(process)
        told = json.loads(process.stdout.readline())['events']
        # All in one interval, however long they take.
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        client = wire.Client(world.host.socket)
        for i in range(700):
            client.send(COMMAND, i + 1, {'verb': 'breaker-close' if i % 2 else 'breaker-open', 'name': 'one'})
            kind, _, body = client.read()
            equal((kind, body['status']), (DONE, 0), body)
        process.send_signal(signal.SIGCONT)
        most = 0
        while len([e for e in told if e['kind'] == 'breaker']) < 700:
            line = json.loads(process.stdout.readline())
            equal(line['events_lost'], 0, 'the region keeps more than that')
            told += line['events']
            most = max(most, len(line['events']))
        check(most >= 700, f'{most} events in one interval')
        equal([e['number'] for e in told], list(range(1, len(told) + 1)), 'each once, none left out')
        client.close()
        process.kill()
        process.wait(30)
        process.stdout.close()


# ---- names that are no names ----

EVIL = b'\x1b[2J\x1b]0;x\x07\x9b31m\xc2\x9b5n\xe2\x80\xae\xff\r\n\x00'.ljust(24, b'A')


def spoil(path, name):
    """Every name that begins so becomes garbage, as another participant could write it."""
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as region:
        at, count = region.find(name), 0
        while at >= 0:
            region[at:at + len(EVIL) - 8] = EVIL[:-8].replace(b'\x00', b'\n')
            count += 1
            at = region.find(name, at + 1)
    return count


def test_garbage_in_names_never_reaches_a_terminal():
    with World(limits=[{'user': 'evil-limit-0123456789abcdef', 'requests': '5/min'}],
               models=[{'name': 'evil-model-0123456789abcdef', 'provider': 'one'}],
               routes=[{'name': 'both', 'targets': ['evil-model-0123456789abcdef', 'two/n']}]) as world:
        with world.top(100, 30) as top:
            top.wait_text('^user evil-limit')
            for name in (b'evil-limit', b'evil-model'):
                check(spoil(world.host.region, name), name)
            top.wait_text(r'^user \?\[2J\?')
            top.type('4')
            top.wait(lambda s: focus(top) == 'events', 'keys')
            equal(top.screen.strange, [], 'what the terminal got')
        for command in (['limits'], ['breakers'], ['dump'], ['status'], ['route', 'both', '--explain'],
                        ['limits', '--json'], ['breakers', '--json'], ['dump', '--json'],
                        ['top', '--once', '--interval', '0.1'], ['top', '--once', '--json', '--interval', '0.1'],
                        ['limits', 'reset', '\x1b[2J'], ['breakers', 'open', '\x9b2J']):
            out = world.host.tool(*command)
            bad = [c for c in out.stdout + out.stderr
                   if c not in '\n' and unicodedata.category(c) in ('Cc', 'Cf', 'Zl', 'Zp')]
            equal(bad, [], command)
            if '--json' in command:
                json.loads(out.stdout)


# ---- limits ----

def limit_row(host, label):
    rows = json.loads(run(host, 'limits', '--json'))['limits']
    return next(row for row in rows if row['label'] == label)


def test_limits_lists_resets_and_resumes():
    with World() as world:
        host = world.host
        for _ in range(4):
            equal(world.ask('-m', 'm', '-u', 'bob'), 'end')
        row = limit_row(host, 'provider one requests')
        equal((row['owed'], row['available'], row['admitted']), (4, 6, 4), 'used')
        equal(limit_row(host, 'user bob requests')['template'], True)
        text = run(host, 'limits')
        check(re.search(r'^provider one requests +100/day +10 +4 +0 +6 .* 4 +0$', text, re.M), text)
        check(re.search(r'^user bob requests +20/day .*template$', text, re.M), text)
        check('done' in run(host, 'limits', 'reset', 'provider one requests'), 'told')
        row = limit_row(host, 'provider one requests')
        equal((row['owed'], row['available'], row['admitted']), (0, 10, 4), 'as if nothing were owed')
        world.one.set_script('*: status=429; retry_after=600')
        world.ask('-m', 'm', '-u', 'bob')
        paused = [r['label'] for r in json.loads(run(host, 'limits', '--json'))['limits'] if r['paused_ns']]
        check(paused, 'a pause')
        check(re.search(r'paused (9|10) m', run(host, 'limits')), 'shown')
        for label in paused:
            run(host, 'limits', 'resume', label)
            equal(limit_row(host, label)['paused_ns'], 0, label)


def test_limits_says_what_is_wrong():
    with World(access={'observers': {'everyone': True}}) as world:
        host = world.host
        check('no limit "nonsense"' in run(host, 'limits', 'reset', 'nonsense', code=1), 'unknown')
        check('label' in run(host, 'limits', 'reset', code=2), 'no label')
        check('reset or resume' in run(host, 'limits', 'frob', 'x', code=2), 'no such act')
        run(host, 'limits', 'reset', 'a', 'b', code=2)
        for command in (['limits', 'reset', 'provider one requests'], ['breakers', 'open', 'one'], ['reload']):
            out = tool_as_nobody(host, 'llmkit', *command)
            equal(out.returncode, 1, out)
            check('observer' in out.stderr or 'may not' in out.stderr, out.stderr)
        host.kill()
        check('provider one requests' in run(host, 'limits'), 'listing needs no daemon')
        for command in (['limits', 'reset', 'provider one requests'], ['breakers', 'open', 'one'], ['reload'],
                        ['route', 'both']):
            check('daemon' in run(host, *command, code=1), command)
        for command in (['limits'], ['breakers'], ['dump'], ['top', '--once']):
            text = run(host, *command, '--region', '/nonexistent', code=1)
            check('/nonexistent: No such file' in text, text)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b'x' * 8192)
        file.flush()
        out = subprocess.run([os.path.join(BUILD, 'tools', 'llmkit'), 'limits', '--region', file.name],
                             capture_output=True, text=True, check=False, timeout=30)
        check(out.returncode == 1 and 'control region' in out.stderr, out)


# ---- breakers ----

def breaker(host, target):
    rows = json.loads(run(host, 'breakers', '--json'))['breakers']
    return next(row for row in rows if row['target'] == target)


def test_breakers_lists_and_acts():
    with World() as world:
        host = world.host
        equal(world.ask('-m', 'm'), 'end')
        text = run(host, 'breakers')
        check(re.search(r'^one/m +closed +1 +0 +0\.0% +0 ', text, re.M), text)
        run(host, 'breakers', 'open', 'one/m')
        row = breaker(host, 'one/m')
        equal((row['state'], row['forced']), ('open', True))
        check(re.search(r'^one/m +open .* by hand$', run(host, 'breakers'), re.M), 'text')
        equal((world.ask('-m', 'm'), len(world.one.arrivals())), ('error', 1), 'nothing goes there')
        run(host, 'breakers', 'close', 'one/m')
        equal((breaker(host, 'one/m')['state'], world.ask('-m', 'm')), ('closed', 'end'))
        world.fail()
        row = breaker(host, 'two/n')
        equal((row['state'], row['forced'], row['errors'] > 4), ('open', False, True))
        check(re.search(r'^two/n +open .* again in ', run(host, 'breakers'), re.M), 'text')
        run(host, 'breakers', 'reset', 'two/n')
        row = breaker(host, 'two/n')
        equal((row['state'], row['error_ratio']), ('closed', 0))
        check('no target "nobody/x"' in run(host, 'breakers', 'open', 'nobody/x', code=1), 'unknown')
        check('needs a target' in run(host, 'breakers', 'open', code=2), 'no target')
        check('open, close or reset' in run(host, 'breakers', 'frob', 'one', code=2), 'no such act')


def test_breakers_says_what_a_half_open_one_waits_for():
    quick = {'failures': 2, 'backoff': '100ms', 'backoff_max': '100ms'}
    models = [{'name': 'm', 'provider': 'one', 'breaker': quick}]
    with World(models=models, limits=[], templates={}) as world:
        world.one.set_script('*: status=500')
        wait_for(lambda: world.ask('-m', 'm') and breaker(world.host, 'one/m')['state'] == 'open', what='open')
        wait_for(lambda: breaker(world.host, 'one/m')['retry_ns'] == 0, what='it is time for a probe')
        world.one.set_script('*: first_ms=600000')
        world.background('-m', 'm')
        wait_for(lambda: breaker(world.host, 'one/m')['state'] == 'half-open', what='half-open')
        text = run(world.host, 'breakers')
        check(re.search(r'^one/m +half-open .*[\dms-]  probes out: 1$', text, re.M), text)


def test_breakers_shows_the_pause_of_the_provider():
    with World() as world:
        host = world.host
        member = Member(host)
        member.good('scope', provider='two')
        member.good('feedback', status=429, header='retry-after:600')
        paused = {row['target'] for row in json.loads(run(host, 'breakers', '--json'))['breakers']
                  if 590 * 10**9 < row['paused_ns'] <= 600 * 10**9}
        equal(paused, {'two', 'two/n'}, 'nobody goes to its model either')
        text = run(host, 'breakers')
        for name in paused:
            check(re.search(f'^{name} +closed .*  paused (9|10) m ', text, re.M), text)
        top = json.loads(run(host, 'top', '--once', '--json', '--interval', '0.05'))
        equal({row['target'] for row in top['targets'] if row['paused_ns']}, paused, 'top says so, too')
        member.leave()


# ---- route ----

STRATEGIES = ['balanced', 'cost', 'latency', 'reliability', 'round_robin', 'weighted', 'order']


def reasons(host, *arguments):
    rows = json.loads(run(host, 'route', 'both', '--json', *arguments))['targets']
    return {row['provider'] + '/' + row['model']: row['reason'] for row in rows}


def test_route_explains():
    with World(models=[{'name': 'm', 'provider': 'one', 'price': {'input': 1, 'output': 2}, 'context': 100000,
                        'capabilities': ['tools', 'streaming']},
                       {'name': 'n', 'provider': 'two', 'price': {'input': 3, 'output': 3}}]) as world:
        host = world.host
        equal(reasons(host), {'one/m': 'chosen', 'two/n': 'fallback'})
        equal(reasons(host, '--needs', 'tools,vision')['one/m'], 'out: capability')
        equal(reasons(host, '--needs', 'streaming,tools')['one/m'], 'chosen')
        equal(reasons(host, '--input', '200000')['one/m'], 'out: context')
        equal(reasons(host, '--input', '100', '--output', '100', '--price-cap', '0.0004'),
              {'one/m': 'chosen', 'two/n': 'out: price'})
        # By cost, a target that nobody has tried may also be first because of that.
        check(reasons(host, '--strategy', 'cost', '--input', '100', '--output', '100')['one/m'] in
              ('chosen', 'explored', 'fallback', 'cold'), 'another strategy')
        for name in STRATEGIES:
            equal(set(reasons(host, '--strategy', name)), {'one/m', 'two/n'}, name)
        for _ in range(10):  # that is, not by lot
            equal(reasons(host, '--strategy', 'order')['one/m'], 'chosen')
        text = run(host, 'route', 'both', '--explain', '--needs', 'vision')
        check(re.search(r'^ 1 +two/n .* chosen$', text, re.M), text)
        check(re.search(r'^ 2 +one/m .* out: capability$', text, re.M), text)
        check('one/m' not in run(host, 'route', 'both', '--needs', 'vision'), 'only with --explain')
        run(host, 'breakers', 'open', 'one/m')
        equal(reasons(host), {'one/m': 'out: breaker', 'two/n': 'chosen'})
        run(host, 'breakers', 'close', 'one/m')
        for _ in range(10):
            world.ask('-m', 'm')
        equal(reasons(host)['one/m'], 'out: budget', 'ten of ten a day are used')
        equal(reasons(host, '--patience', '90000')['one/m'] != 'out: budget', True, 'patience')
        run(host, 'limits', 'reset', 'provider one requests')
        world.one.set_script('*: status=429; retry_after=600')
        world.ask('-m', 'm')
        check(reasons(host)['one/m'] in ('out: paused', 'out: budget'), reasons(host))


def test_route_says_what_is_wrong():
    with World() as world:
        host = world.host
        for arguments, word in ((['--strategy', 'luck'], ' '.join(['there are:', *STRATEGIES])),
                                (['--needs', 'tools,hands'], 'there are: tools vision json reasoning streaming\n'),
                                (['--input', 'x'], '--input'), (['--price-cap', '-1'], '--price-cap')):
            check(word in run(host, 'route', 'both', *arguments, code=2), arguments)
        check('name a route' in run(host, 'route', code=2), 'no name')
        run(host, 'route', 'both', 'more', code=2)
        run(host, 'route', 'nosuch', code=1)


def test_route_leaves_out_a_provider_without_a_key():
    with World() as world:
        host = world.host
        providers = [host.provider('openai', world.one, name='one'), host.provider('openai', world.two, name='two')]
        providers[0]['key'] = {'env': 'THERE_IS_NO_SUCH_VARIABLE'}
        configuration(host, world.one, world.two, providers=providers)
        run(host, 'reload')
        equal(reasons(host), {'one/m': 'out: unavailable', 'two/n': 'chosen'})


# ---- reload ----

def test_reload_tells_what_came_of_it():
    with World() as world:
        host = world.host
        configuration(host, world.one, world.two, limits=[{'provider': 'one', 'requests': '77/min'}])
        check('done' in run(host, 'reload'), 'told')
        check('77/min' in run(host, 'limits'), 'applied')
        with open(host.config, 'w', encoding='utf-8') as file:
            file.write('\n\nlimits:\n  - provider: nosuch\n    requests: 5/s\n')
        text = run(host, 'reload', code=1)
        check(f'{host.config}:4:' in text and 'nosuch' in text, text)
        check('77/min' in run(host, 'limits'), 'nothing changed')
        run(host, 'reload', 'x', code=2)


# ---- dump ----

def test_dump_shows_every_table_and_field():
    with open(os.path.join(SOURCE, 'shm', 'tbl', 'layout.h'), encoding='utf-8') as file:
        fields = re.findall(r'LAYOUT_FIELD\((\w+), (\w+),', file.read())
    tables = {}
    for struct, field in fields:
        if struct.startswith('layout_') and not field.startswith('pad'):
            tables.setdefault(struct, []).append(field)
    names = {'layout_bucket': 'limit_words', 'layout_bucket_name': 'limit_names', 'layout_template': 'templates',
             'layout_hold': 'holds', 'layout_target': 'targets', 'layout_breaker': 'breakers',
             'layout_latency': 'latencies', 'layout_route': 'routes', 'layout_estimate': 'estimates',
             'layout_event': 'events'}
    apart = {'layout_header', 'layout_section', 'layout_timebase', 'layout_participant'}
    equal(set(tables) - apart, set(names), 'every table has its place here')
    with World() as world:
        world.ask('-m', 'm', '-u', 'alice')
        world.background('-m', 'one/' + SLOW)
        wait_for(lambda: world.host.dump()['holds'], what='a hold')
        dump = world.host.dump()
        for struct, name in names.items():
            check(dump.get(name), f'{name} has rows')
            for row in dump[name]:
                equal(sorted(set(tables[struct]) - set(row)), [], f'fields of {name}')
        text = run(world.host, 'dump')
        for name in names.values():
            check(re.search(f'^{name}$', text, re.M), name)
        known = {'scope', 'name', 'resource', 'limit', 'window_ns', 'burst', 'available', 'admitted', 'rejected',
                 'held'}
        check(known <= set(dump['limits'][0]), dump['limits'][0])
        flat = json.dumps(dump['header'])
        for field in set(tables['layout_header']) - {'magic', 'boot_id', 'section', 'timebase'}:
            check(field in flat, f'header: {field}')
        for field in tables['layout_timebase']:
            check('timebase_' + field in flat, f'timebase: {field}')
        equal({s['type'] for s in dump['header']['sections']}, set(range(1, 13)), 'sections')


if __name__ == '__main__':
    main()
