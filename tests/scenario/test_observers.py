#!/usr/bin/env python3
"""Other users of the machine: refused, observing, participating. Needs root to become them."""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import subprocess
import traceback

import wire
from harness import BUILD, NOBODY, Host, clean_environment, last_of, text_of
from tap import Skip, check, equal, main, wait_for

REFUSED = 3
COMMAND, DONE = 0x06, 0x85
OBSERVER, PARTICIPANT = 0, 1


def as_nobody(function):
    """What function() returns in a child process of user nobody, through JSON."""
    if os.geteuid() != 0:
        raise Skip('only root can become another user')
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            answer = {'value': function()}
        except BaseException:  # whatever it was, the parent shall see it
            answer = {'error': traceback.format_exc()}
        os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        answer = json.loads(file.read())
    os.waitpid(pid, 0)
    check('error' not in answer, answer.get('error'))
    return answer['value']


def tool_as_nobody(host, *command, timeout=30):
    """The built programs where nobody may read them."""
    if os.geteuid() != 0:
        raise Skip('only root can become another user')
    folder = os.path.join(host.folder, 'bin')
    os.makedirs(folder, exist_ok=True)
    for name in ('tools/llmkit', 'tests/scenario/scenario-load', 'libclient/libllmkit.so.0'):
        shutil.copy(os.path.join(BUILD, name), folder)
    return subprocess.run(
        [os.path.join(folder, command[0]), *command[1:]], capture_output=True, text=True, check=False,
        timeout=timeout, user=NOBODY, group=NOBODY, extra_groups=[], cwd='/', stdin=subprocess.DEVNULL,
        env=clean_environment(LLMKIT_SOCKET=host.socket, LD_LIBRARY_PATH=folder))


def host_with(access=None):
    host = Host()
    sections = {'access': access} if access else {}
    host.configure(providers=[host.provider('openai', host.fake())],
                   limits=[{'provider': 'openai', 'requests': '10/day', 'burst': 5}], **sections)
    host.start()
    return host


# ---- nobody ----

def test_strangers_are_refused_and_told():
    with host_with() as host:
        out = tool_as_nobody(host, 'llmkit', 'chat', '-m', 'openai/fake', 'x')
        equal(out.returncode, 1, 'exit code')
        check('this user may not use the daemon' in out.stderr, out.stderr)

        def connect():
            client = wire.Client(host.socket, hello=False)
            return client.read()

        kind, request_id, body = as_nobody(connect)
        equal((kind, request_id, body['status']), (wire.ERROR, 0, REFUSED), 'told before HELLO')
        check('access list' in body['message'], body)
        wait_for(lambda: host.dump()['counters']['connections_refused'] == 2, what='counted')
        check(f'uid={NOBODY}' in host.log_text() and 'access list' in host.log_text(), 'logged')


def test_dump_says_what_to_do():
    with host_with() as host:
        out = tool_as_nobody(host, 'llmkit', 'dump')
        equal(out.returncode, 1, 'exit code')
        check("run as the daemon's user or as root" in out.stderr, out.stderr)


# ---- observers ----

def bucket_place(host):
    """Where the row of the only limit lies in the region."""
    dump = host.dump()
    section = [s for s in dump['header']['sections'] if s['type'] == 1][0]
    return section['offset'] + dump['limits'][0]['row'] * section['row_size'], dump['limits'][0]


def attack(fd, place, target):
    """Everything that would write, with how the kernel answered."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                          ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    zeros = bytes(64)

    def by_libc(result):
        if result in (-1, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), '')

    def mprotect():
        at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        by_libc(libc.mprotect(at, 4096, mmap.PROT_READ | mmap.PROT_WRITE))

    def change_flags():
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
        os.pwrite(fd, zeros, place)

    def splice():
        read_end, write_end = os.pipe()
        os.write(write_end, zeros)
        os.splice(read_end, fd, 64, offset_dst=place)

    def sendfile():
        with open('/dev/zero', 'rb') as zero:
            os.sendfile(fd, zero.fileno(), 0, 64)

    attacks = {
        'mmap': lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        'mprotect': mprotect,
        'reopen': lambda: os.open(f'/proc/self/fd/{fd}', os.O_RDWR),
        'reopen to write': lambda: os.open(f'/proc/self/fd/{fd}', os.O_WRONLY),
        'reopen to truncate': lambda: os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_TRUNC),
        'open by name': lambda: os.open(target, os.O_RDWR),
        'write': lambda: os.write(fd, zeros),
        'pwrite': lambda: os.pwrite(fd, zeros, place),
        'ftruncate': lambda: os.ftruncate(fd, 0),
        'fallocate': lambda: os.posix_fallocate(fd, 0, 1 << 20),
        'punch a hole': lambda: by_libc(libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096))),
        'fchmod': lambda: os.fchmod(fd, 0o666),
        'fchown': lambda: os.fchown(fd, NOBODY, NOBODY),
        'change flags': change_flags,
        'splice': splice,
        'sendfile': sendfile,
        'unlink': lambda: os.unlink(target),
        'rename over': lambda: os.rename(target, target + '.stolen'),
    }
    answers = {}
    for name, function in attacks.items():
        try:
            function()
            answers[name] = 'possible'
        except OSError as error:
            answers[name] = errno.errorcode[error.errno]
    return answers


def attack_tables(fd, sections, target):
    """The same at every table of the region, through the mapping and around it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                          ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = mmap.PAGESIZE
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own again

    def by_libc(result):
        if result in (-1, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), '')

    def private_memory(at):
        with open('/proc/self/mem', 'r+b', buffering=0) as memory:
            memory.seek(at)
            memory.write(bytes(64))

    answers = {}
    for section in sections:
        first = section['offset'] // page * page
        at = libc.mmap(None, page, mmap.PROT_READ, mmap.MAP_SHARED, fd, first)
        beyond = section['offset'] - first
        attacks = {
            'mmap': lambda: by_libc(libc.mmap(None, page, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED,
                                              fd, first)),
            'mprotect': lambda: by_libc(libc.mprotect(at, page, mmap.PROT_READ | mmap.PROT_WRITE)),
            'pwrite': lambda: os.pwrite(fd, bytes(64), section['offset']),
            'pwritev': lambda: os.pwritev(fd, [bytes(64)], section['offset']),
            '/proc/self/mem': lambda: private_memory(at + beyond),
            'remove pages': lambda: by_libc(libc.madvise(at, page, 9)),  # MADV_REMOVE
            'read into it': lambda: read_into(libc, at + beyond),
            'punch a hole': lambda: by_libc(libc.fallocate(fd, 3, ctypes.c_long(first), ctypes.c_long(page))),
            'collapse': lambda: by_libc(libc.fallocate(fd, 8, ctypes.c_long(first), ctypes.c_long(page))),
            'zero a range': lambda: by_libc(libc.fallocate(fd, 16, ctypes.c_long(first), ctypes.c_long(page))),
            'copy a range': lambda: os.copy_file_range(fd, fd, 64, 0, section['offset']),
        }
        for name, function in attacks.items():
            answers[f'table {section["type"]}: {name}'] = answer_of(function)
    answers['link'] = answer_of(lambda: by_libc(libc.linkat(
        -100, f'/proc/self/fd/{fd}'.encode(), -100, target.encode() + b'.mine', 0x400)))
    answers['truncate by name'] = answer_of(lambda: os.truncate(target, 0))
    answers['seal'] = answer_of(lambda: fcntl.fcntl(fd, 1033, 0xf))  # F_ADD_SEALS
    return answers


def read_into(libc, at):
    """The kernel writes for us: a read whose buffer is the mapping."""
    with open('/dev/zero', 'rb') as zero:
        if libc.read(zero.fileno(), ctypes.c_void_p(at), 64) < 0:
            raise OSError(ctypes.get_errno(), '')


def attack_daemon(pid):
    """Through the process that may write."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    class Vector(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]

    def by_libc(result):
        if result == -1:
            raise OSError(ctypes.get_errno(), '')

    def write_its_memory():
        mine = ctypes.create_string_buffer(8)
        local = Vector(ctypes.addressof(mine), 8)
        by_libc(libc.process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(local), 1, 0))

    def take_its_descriptor():
        pidfd = os.pidfd_open(pid)
        for number in range(3, 32):
            by_libc(libc.syscall(438, pidfd, number, 0))  # pidfd_getfd

    attacks = {
        'ptrace': lambda: by_libc(libc.ptrace(16, pid, None, None)),
        'seize': lambda: by_libc(libc.ptrace(0x4206, pid, None, None)),
        'process_vm_writev': write_its_memory,
        'pidfd_getfd': take_its_descriptor,
        '/proc/PID/mem': lambda: os.open(f'/proc/{pid}/mem', os.O_RDWR),
        '/proc/PID/fd': lambda: os.listdir(f'/proc/{pid}/fd'),
        '/proc/PID/map_files': lambda: os.listdir(f'/proc/{pid}/map_files'),
        'SIGHUP': lambda: os.kill(pid, 1),
        'SIGSTOP': lambda: os.kill(pid, 19),
    }
    return {name: answer_of(function) for name, function in attacks.items()}


def answer_of(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode[error.errno]
    return 'possible'


def settled_facts(dump):
    """What only the daemon and participants may change."""
    def pick(rows, *names):
        return [[row[name] for name in names] for row in rows]

    return {
        'limits': pick(dump['limit_words'], 'row', 'key', 'tat', 'held', 'interval', 'tolerance', 'pause_ns'),
        'names': pick(dump['limit_names'], 'row', 'name', 'limit', 'burst', 'heard'),
        'templates': dump['templates'],
        'holds': dump['holds'],
        'targets': dump['targets'],
        'breakers': dump['breakers'],
        'routes': dump['routes'],
        'events': dump['events'],
        'participants': dump['participants'],
    }


def dump_without_clients(host):
    dump = host.dump()
    attached = [p['pid'] for p in dump['participants'] if p['state'] == 'attached']
    return dump if attached == [host.daemon.pid] else None


def test_observers_cannot_touch_any_table():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())],
                       models=[{'name': 'm', 'provider': 'openai', 'price': {'input': 1, 'output': 1}}],
                       routes=[{'name': 'r', 'targets': ['m', 'openai/n']}],
                       limits=[{'provider': 'openai', 'requests': '5/day', 'tokens': '10/day'}],
                       templates={'per_user': {'concurrency': 3}},
                       access={'observers': {'users': [str(NOBODY)]}})
        host.start()
        # The connection that asked whether the daemon is ready has been seen to end.
        dump = wait_for(lambda: dump_without_clients(host), what='nobody is attached')
        sections, pid, target = dump['header']['sections'], host.daemon.pid, os.path.realpath(host.region)
        before = settled_facts(dump)

        def observe():
            client = wire.Client(host.socket)
            answers = attack_tables(client.region_fd, sections, target)
            answers.update(attack_daemon(pid))
            said = {}
            for number, (verb, name) in enumerate((
                    ('reload', ''), ('breaker-open', 'openai/m'), ('breaker-close', 'openai/m'),
                    ('breaker-reset', 'openai'), ('limit-reset', 'provider openai requests'),
                    ('limit-resume', 'provider openai requests')), 1):
                client.send(COMMAND, number, {'verb': verb, 'name': name})
                kind, got, body = client.read()
                said[verb] = (kind, got == number, body['status'])
            return answers, said, client.welcome.get('owner', 0)

        answers, said, owner = as_nobody(observe)
        for name, answer in answers.items():
            check(answer in ('EACCES', 'EBADF', 'EPERM', 'EFAULT', 'EIO'), f'{name}: {answer}')
        equal(len(sections), len({name.split(':')[0] for name in answers if name.startswith('table')}), 'tables')
        for verb, answer in said.items():
            equal(answer, [DONE, True, REFUSED], verb)
        equal(owner, 0, 'it can hold nothing')
        equal(settled_facts(host.dump()), before, 'nothing changed')
        check(host.daemon.poll() is None, 'the daemon runs')


def test_observers_see_everything_and_change_nothing():
    with host_with({'observers': {'users': [str(NOBODY)]}}) as host:
        place, before = bucket_place(host)
        target = os.path.realpath(host.region)

        def observe():
            client = wire.Client(host.socket)
            with mmap.mmap(client.region_fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as region:
                magic = region[:8].decode()
            answers = attack(client.region_fd, place, target)
            client.submit(1, 'openai/fake', '{"messages":[{"role":"user","content":"x"}]}')
            return client.welcome.get('role', 0), magic, answers, client.read_to_end(1)[-1][0]

        role, magic, answers, last = as_nobody(observe)
        equal(role, OBSERVER, 'role')
        equal(magic, 'CONTROL1', 'it can be read')
        for name, answer in answers.items():
            check(answer in ('EACCES', 'EBADF', 'EPERM', 'EINVAL', 'EROFS'), f'{name}: {answer}')
        print('#', answers)
        equal(last, wire.END, 'requests are for observers too')
        after = bucket_place(host)[1]
        equal(after['admitted'], before['admitted'] + 1, 'the request counted, nothing else changed')
        equal(os.stat(target).st_mode & 0o777, 0o600, 'mode')
        check(not host.participants(), 'an observer has no row')


def test_observers_cannot_take_budgets():
    with host_with({'observers': {'everyone': True}}) as host:
        out = tool_as_nobody(host, 'llmkit', 'chat', '-m', 'openai/fake', 'x')
        equal(out.returncode, 0, out.stderr)
        expected = os.path.join(host.folder, 'expected')
        with open(expected, 'w', encoding='ascii') as file:
            file.write('x')
        out = tool_as_nobody(host, 'scenario-load', '--model', 'openai/fake', '--expect', expected,
                             '--acquire-provider', 'openai', '--acquire-user', 'x')
        check('opening: LLMKIT_E_NO_REGION' in out.stdout, out.stdout)


# ---- participants ----

def test_participants_share_the_budgets():
    with host_with({'participants': {'users': [str(NOBODY)]}}) as host:
        def participate():
            client = wire.Client(host.socket)
            with mmap.mmap(client.region_fd, 0) as region:
                magic = region[:8].decode()
            return client.welcome['role'], magic

        equal(as_nobody(participate), [PARTICIPANT, 'CONTROL1'], 'role, and it maps read-write')
        expected = os.path.join(host.folder, 'expected')
        with open(expected, 'w', encoding='ascii') as file:
            file.write(text_of(host.chat('hello', '-m', 'openai/fake')))
        out = tool_as_nobody(host, 'scenario-load', '--model', 'openai/fake', '--expect', expected,
                             '--acquire-provider', 'openai', '--acquire-user', 'x', '--requests', '1')
        total = json.loads(out.stdout.splitlines()[-1])
        equal((out.returncode, total['bad']), (0, 0), out.stdout + out.stderr)
        # One of the burst went to the chat; whether its request came before its calls is open.
        equal(total['acquired'] + total['ended'], 4, f'the rest of the burst: {total}')
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['code'], 'LLMKIT_E_LIMITED', 'shared')
        equal(host.dump()['limits'][0]['admitted'], 5, 'all of it')


if __name__ == '__main__':
    main()
