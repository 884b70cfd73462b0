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
