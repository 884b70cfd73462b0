#!/usr/bin/env python3
"""Canary keys are looked for in everything the daemon says, shows and keeps."""
import contextlib
import os
import re
import signal
import subprocess

import wire
from harness import KEY, NOBODY, Host, last_of, sanitized
from tap import Skip, check, equal, main, wait_for

ENV_KEY = 'gsk-canary-environment-ABCDEFGHIJKLMNOP'
CREDENTIAL_KEY = 'sk-ant-canary-credential-QRSTUVWXYZ012345'
# Cut at both ends: part of a key is a leak too.
NEEDLES = {key: key[6:-6].encode() for key in (KEY, ENV_KEY, CREDENTIAL_KEY)}
BODY = '{"messages":[{"role":"user","content":"x"}],"stream":true}'
MODELS = ('openai/fake', 'groq/fake', 'anthropic/fake')


def clean(what, data):
    data = data.encode() if isinstance(data, str) else data
    for key, needle in NEEDLES.items():
        check(needle not in data, f'{what} holds {key[:14]}...')


@contextlib.contextmanager
def secret_host(tls=False):
    """A provider for each place a key can come from."""
    with Host() as host:
        fake = host.fake()
        folder = os.path.join(host.folder, 'credentials')
        os.mkdir(folder)
        with open(os.path.join(folder, 'anthropic'), 'w', encoding='ascii') as file:
            file.write(CREDENTIAL_KEY)
        os.chmod(file.name, 0o600)
        host.environment.update(GROQ_API_KEY=ENV_KEY, CREDENTIALS_DIRECTORY=folder)
        groq = host.provider('groq', fake, tls=tls)
        del groq['key']
        host.configure(
            providers=[host.provider('openai', fake, tls=tls), groq,
                       host.provider('anthropic', fake, tls=tls, key={'credential': 'anthropic'})],
            limits=[{'provider': 'openai', 'requests': '1000/s'}])
        host.start()
        yield host, fake


def check_everything_outside(host):
    """Log, region, tools' output, what /proc shows of the process."""
    clean('log', host.log_text())
    with open(os.path.realpath(host.region), 'rb') as file:
        clean('region', file.read())
    for arguments in (('dump',), ('dump', '--json'), ('status',), ('status', '--json')):
        out = host.tool(*arguments)
        equal(out.returncode, 0, out.stderr)
        clean(' '.join(arguments), out.stdout + out.stderr)
    for name in ('cmdline', 'environ', 'status', 'comm', 'auxv'):
        with open(f'/proc/{host.daemon.pid}/{name}', 'rb') as file:
            clean(f'/proc/PID/{name}', file.read())


def raw_answer(host, model):
    """Every byte the daemon sends for a request."""
    client = wire.Client(host.socket)
    data = b''
    client.submit(1, model, BODY)
    while True:
        client.receive()
        data += client.buffer
        client.buffer = b''
        if data[4:].find(b'\x95\x00\x00\x00') >= 0 or data.find(b'\x96\x00\x00\x00') >= 0:
            break
    client.close()
    return data


def test_no_output_holds_a_key():
    for tls in (False, True):
        with secret_host(tls) as (host, fake):
            for model in MODELS:
                clean('frames', raw_answer(host, model))
                equal(last_of(host.chat('x', '-m', model))['type'], 'end', model)
            seen = {a['key_sha'] for a in fake.arrivals()}
            check(len(seen) == 3 and '' not in seen, f'three keys were used: {seen}')
            check_everything_outside(host)
            host.daemon.send_signal(signal.SIGHUP)
            wait_for(lambda: 'configuration reloaded' in host.log_text(), what='reload')
            for model in MODELS:
                equal(last_of(host.chat('x', '-m', model))['type'], 'end', f'{model} after reload')
            check_everything_outside(host)


def test_errors_that_echo_the_key_are_cleaned():
    """Providers repeat what they were sent: in an error's message, type and code, as text, in-band."""
    echo = 'error_message=Incorrect API key provided: {0}. You can find; error_type={0}; error_code={0}'
    scripts = ('status=401; ', 'status=400; ', 'status=404; ', 'status=529; ', 'status=500; ',
               'status=429; retry_after=1; ', 'inband_error=2; ')
    with secret_host() as (host, fake):
        for model, key in zip(MODELS, (KEY, ENV_KEY, CREDENTIAL_KEY)):
            for script in scripts:
                fake.set_script('*: ' + script + echo.format(key))
                raw = raw_answer(host, model)
                check(b'\x96\x00\x00\x00' in raw, f'{model} {script}: an error')
                clean(f'{model} {script}: frames', raw)
                error = last_of(host.chat('x', '-m', model))
                equal(error['type'], 'error', script)
                check(error['message'], script)
                clean('chat', str(error))
        check_everything_outside(host)


def test_bad_keys_are_not_repeated():
    """A key that cannot be used, or stands where it must not, is named by its place."""
    with Host() as host:
        fake = host.fake()
        provider = host.provider('openai', fake)
        for name, text in (('with a space', KEY + ' ' + KEY), ('two lines', KEY + '\n' + KEY)):
            with open(host.key_file, 'w', encoding='ascii') as file:
                file.write(text)
            host.configure(providers=[provider])
            equal(host.spawn('--config', host.config).wait(20), 2, name)
        check(host.key_file in host.log_text(), 'its place is named')
        for where in ({'key': KEY}, {'api_key': KEY}, {'key': {'value': KEY}}, {'key': {'env': KEY + '='}}):
            host.configure(providers=[{**provider, **where}])
            equal(host.spawn('--config', host.config).wait(20), 2, str(where.keys()))
            equal(host.spawn('--check-config', host.config).wait(20), 2, str(where.keys()))
        clean('log', host.log_text())


# ---- the process itself ----

def mappings(pid):
    """(first, end, flags, line) of each mapping."""
    out, line = [], ''
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as file:
        for text in file:
            if re.match(r'^[0-9a-f]+-[0-9a-f]+ ', text):
                line = text.strip()
            elif text.startswith('VmFlags:'):
                first, end = (int(x, 16) for x in line.split()[0].split('-'))
                out.append((first, end, text.split()[1:], line))
    return out


def find_in_memory(pid):
    """(key, flags, line) wherever a part of a key lies in the process' memory."""
    found = []
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
        for first, end, flags, line in mappings(pid):
            if 'rd' not in flags or line.endswith('[vvar]'):
                continue
            try:
                memory.seek(first)
                data = memory.read(end - first)
                while len(data) < end - first:
                    data += memory.read(end - first - len(data)) or b'\0' * (end - first - len(data))
            except OSError:
                continue
            for key, needle in NEEDLES.items():
                at = data.find(needle)
                while at >= 0:
                    around = data[max(0, at - 60):at + 60]
                    found.append((key, flags, f'{line} at {first + at:#x}: {around!r}'))
                    at = data.find(needle, at + 1)
    return found


def check_memory(host, when):
    found = find_in_memory(host.daemon.pid)
    for key in NEEDLES:
        check(any(k == key and {'dd', 'lo', 'wf'} <= set(flags) and 'wr' not in flags
                  for k, flags, _ in found), f'{when}: {key[:14]}... lies in its locked page: {found}')
    # Left out of core files, wiped in children.
    stray = [f'{key[:14]}...: {line}' for key, flags, line in found if not {'dd', 'wf'} <= set(flags)]
    check(not stray, f'{when}: keys elsewhere in memory:\n' + '\n'.join(stray))


def start_slow_chats(host):
    chats = [subprocess.Popen(host.tool_command('chat', '-s', host.socket, '-m',
                                                f'{model}?first_ms=700', 'x'),
                              stdout=subprocess.DEVNULL)
             for model in MODELS for _ in range(2)]
    host.workers += chats
    return chats


def test_memory_that_core_files_show_holds_no_key():
    """What a core file of the process would show: every mapping that is not left out of it."""
    if sanitized():
        raise Skip('a sanitizer keeps copies of what is freed')
    if os.geteuid() != 0:
        raise Skip('only root may read the memory of a process that is not dumpable')
    for tls in (False, True):
        with secret_host(tls) as (host, fake):
            check_memory(host, f'tls={tls}: before the first request')
            # The second time on kept connections, where a request may have to be sent again.
            for when in ('on new connections', 'on kept connections'):
                chats = start_slow_chats(host)
                wait_for(lambda: host.dump()['counters']['requests_active'] == len(chats), what='in flight')
                wait_for(lambda: fake.stats()['in_flight'] == len(chats), what='all have arrived')
                check_memory(host, f'tls={tls}: in flight {when}')
                for chat in chats:
                    equal(chat.wait(30), 0, 'answered')
            check(any(a['reused'] for a in fake.arrivals()), 'connections were kept')
            check_memory(host, f'tls={tls}: after')
            for script in ('status=401&error_message=no', 'cut_bytes=0&cut=rst', 'status=500',
                           'close_on_reuse=1', 'redirect=http://localhost:9/'):
                for model in MODELS:
                    host.chat('x', '-m', f'{model}?{script}')
            check_memory(host, f'tls={tls}: after failures')
            host.daemon.send_signal(signal.SIGHUP)
            wait_for(lambda: 'configuration reloaded' in host.log_text(), what='reload')
            for model in MODELS:
                host.chat('x', '-m', model)
            check_memory(host, f'tls={tls}: after a reload')


def test_a_key_waiting_to_be_sent_is_wiped_when_its_request_is_given_up():
    """Nobody accepts the connection: the head waits in a buffer until the client leaves."""
    if sanitized() or os.geteuid() != 0:
        raise Skip('needs root and no sanitizer')
    with secret_host() as (host, fake):
        os.kill(fake.process.pid, signal.SIGSTOP)
        chats = [subprocess.Popen(host.tool_command('chat', '-s', host.socket, '-m', model, 'x' * 90_000),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for model in MODELS]
        host.workers += chats
        wait_for(lambda: host.dump()['counters']['requests_active'] == 3, what='three wait')
        for chat in chats:
            chat.kill()
            chat.wait()
        wait_for(lambda: host.dump()['counters']['requests_active'] == 0, what='given up')
        os.kill(fake.process.pid, signal.SIGCONT)
        check_memory(host, 'after giving up')


def limit_of(pid, name):
    with open(f'/proc/{pid}/limits', encoding='ascii') as file:
        return [line for line in file if line.startswith(name)][0][len(name):].split()[:2]


PEEK = '''
import sys
for name in ('mem', 'environ', 'maps', 'smaps'):
    try:
        open(f'/proc/{sys.argv[1]}/{name}', 'rb').read(1)
        print('opened', name)
    except OSError as error:
        print('refused', name, error.errno)
'''


def test_processes_of_the_same_user_cannot_look():
    """No core file, no ptrace, no /proc/PID/mem: also for the daemon's own user."""
    if sanitized():
        raise Skip('a sanitized daemon stays dumpable for its leak check')
    as_nobody = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []} if os.geteuid() == 0 else {}
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.daemon = host.spawn_copy('--config', host.config, **as_nobody)
        host.wait_ready()
        equal(last_of(host.chat('x', '-m', 'openai/fake'))['type'], 'end', 'works for another user')
        equal(limit_of(host.daemon.pid, 'Max core file size'), ['0', '0'], 'core files')
        out = subprocess.run(['/usr/bin/python3', '-c', PEEK, str(host.daemon.pid)], check=True,
                             capture_output=True, text=True, cwd='/', **as_nobody).stdout
        equal([line.split()[:2] for line in out.splitlines()],
              [['refused', name] for name in ('mem', 'environ', 'maps', 'smaps')], out)
        equal(os.stat(f'/proc/{host.daemon.pid}/mem').st_uid, 0, 'not dumpable: /proc/PID is root\'s')


if __name__ == '__main__':
    main()
