#!/usr/bin/env python3
"""What users type: arguments, configuration files, environment, and what they are told."""
import json
import os
import re
import signal
import subprocess

from harness import BUILD, KEY, NOBODY, Host, clean_environment, last_of, text_of
from tap import Skip, check, equal, main, wait_for

DAEMON = os.path.join(BUILD, 'daemon', 'llmkitd')
TOOL = os.path.join(BUILD, 'tools', 'llmkit')


def run(*command, stdin='', **environment):
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False,
                          env=clean_environment(**environment))


def check_config(host, text):
    with open(host.config, 'w', encoding='utf-8') as file:
        file.write(text)
    return run(DAEMON, '--check-config', host.config)


# ---- arguments ----

def test_help_and_version():
    for program, commands in ((DAEMON, ()), (TOOL, ('chat', 'dump', 'status'))):
        for option in ('--help', '-h'):
            out = run(program, option)
            equal((out.returncode, out.stderr), (0, ''), option)
            check(out.stdout.startswith('usage: ' + os.path.basename(program)), out.stdout)
        for option in ('--version', '-V'):
            out = run(program, option)
            equal((out.returncode, out.stderr), (0, ''), option)
            check(re.fullmatch(r'llmkitd? \d+\.\d+\.\d+\n', out.stdout), out.stdout)
        for command in commands:
            for option in ('--help', '-h'):
                out = run(program, command, option)
                equal((out.returncode, out.stderr), (0, ''), f'{command} {option}')
                check(out.stdout.startswith(f'usage: llmkit {command}'), out.stdout)
                check(max(map(len, out.stdout.splitlines())) <= 100, 'lines fit a terminal')


USAGE_ERRORS = (
    # program, arguments, what the message names
    (DAEMON, ('--nonsense',), '--help'),
    (DAEMON, ('argument',), 'argument'),
    (DAEMON, ('--config',), '--help'),
    (DAEMON, ('--log-level', 'loud'), 'loud'),
    (DAEMON, ('--check-config', '/nonexistent.yaml'), '/nonexistent.yaml'),
    (DAEMON, ('--config', '/nonexistent.yaml'), '/nonexistent.yaml'),
    (DAEMON, ('--config', '/'), '/'),
    (TOOL, (), 'usage'),
    (TOOL, ('nonsense',), 'nonsense'),
    (TOOL, ('--nonsense',), '--nonsense'),
    (TOOL, ('chat', '--nonsense'), '--help'),
    (TOOL, ('chat', '--nonsense'), 'llmkit chat: unrecognized option'),
    (TOOL, ('dump', '--nonsense'), 'llmkit dump: unrecognized option'),
    (TOOL, ('status', '-x'), 'llmkit status: invalid option'),
    (TOOL, ('chat', 'x'), '--model'),
    (TOOL, ('chat', '-m', 'a/b', '-r', 'c', 'x'), '--route'),
    (TOOL, ('chat', '-m', 'a/b'), 'empty'),
    (TOOL, ('chat', '-m', 'a/b', ''), 'empty'),
    (TOOL, ('chat', '-m', 'a/b', '  ', '\n'), 'empty'),
    (TOOL, ('chat', '-m', 'a/b', '-n', 'many', 'x'), 'many'),
    (TOOL, ('chat', '-m', 'a/b', '-n', '0', 'x'), '--max-tokens: "0" is not a whole number from 1 to 4294967295'),
    (TOOL, ('chat', '-m', 'a/b', '-n', '1.5', 'x'), '--max-tokens: "1.5"'),
    (TOOL, ('chat', '-m', 'a/b', '-n', 'nan', 'x'), '--max-tokens: "nan"'),
    (TOOL, ('chat', '-m', 'a/b', '-t', 'hot', 'x'), '--temperature: "hot" is not a number from 0 to 10'),
    (TOOL, ('chat', '-m', 'a/b', '-T', '-1', 'x'), '--timeout: "-1" is not a number of seconds from 0.001 to 86400'),
    (TOOL, ('dump', '--nonsense'), '--help'),
    (TOOL, ('status', '--nonsense'), '--help'),
    (TOOL, ('dump', 'extra'), 'llmkit dump: unexpected argument "extra"'),
    (TOOL, ('status', '--json', 'extra'), 'llmkit status: unexpected argument "extra"'),
)


def test_wrong_arguments_are_named():
    for program, arguments, word in USAGE_ERRORS:
        out = run(program, *arguments)
        equal(out.returncode, 2, f'{arguments}: {out.stderr}')
        equal(out.stdout, '', f'{arguments}: nothing on stdout')
        check(word in out.stderr, f'{arguments}: {out.stderr}')


def test_without_a_daemon():
    with Host() as host:
        for arguments in (('chat', '-m', 'a/b', 'x'), ('status',)):
            out = host.tool(*arguments)
            equal(out.returncode, 1, str(arguments))
            check('nothing listens' in out.stderr and 'llmkitd' in out.stderr, out.stderr)
            check(host.socket in out.stderr, f'which socket: {out.stderr}')
        out = host.tool('dump')
        equal(out.returncode, 1, 'dump')
        check(host.region in out.stderr and 'No such file' in out.stderr, out.stderr)
        out = host.tool('status', '--socket', '/' + 'x' * 200)
        equal(out.returncode, 1, 'a path that is too long')
        check('107 bytes' in out.stderr and 'x' * 200 in out.stderr, out.stderr)
        out = run(TOOL, 'chat', '-m', 'a/b', 'x', LLMKIT_SOCKET='/' + 'y' * 107)
        check('107 bytes' in out.stderr and 'y' * 107 in out.stderr, out.stderr)
        out = run(TOOL, 'chat', '-m', 'a/b', 'x', LLMKIT_SOCKET='/' + 'y' * 106)
        check('107 bytes' not in out.stderr and 'nothing listens' in out.stderr, out.stderr)


def test_what_is_no_socket_and_no_region():
    with Host() as host:
        host.configure(providers=[])
        for path in (host.config, host.folder):
            out = host.tool('status', '--socket', path)
            equal(out.returncode, 1, path)
            check(f'not a socket: {path}' in out.stderr, out.stderr)
        out = host.tool('dump', '--region', host.config)
        equal(out.returncode, 1, 'dump')
        check(host.config in out.stderr and 'not a control region' in out.stderr, out.stderr)


def test_closed_standard_descriptors():
    """Sockets must not land on 0, 1 or 2: what is printed would be sent to the peer."""
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        command = [DAEMON, '--config', host.config, '--log-level', 'debug']
        host.daemon = subprocess.Popen(['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', *command],
                                       env=clean_environment())
        host.wait_ready()
        for fd in range(3):
            equal(os.readlink(f'/proc/{host.daemon.pid}/fd/{fd}'), '/dev/null', 'of the daemon')
        for closed, wanted in (('', (0, 'x\n', '')), ('<&-', (0, 'x\n', '')), ('2>&-', (0, 'x\n', '')),
                               ('>&-', (1, '', 'llmkit: standard output cannot be written\n')),
                               ('<&- 2>&-', (0, 'x\n', '')), ('<&- >&- 2>&-', (1, '', ''))):
            out = run('sh', '-c', 'exec "$@" ' + closed, 'sh',
                      *host.tool_command('chat', '-s', host.socket, '-m', 'openai/fake?echo=1', 'x'))
            equal((out.returncode, out.stdout, out.stderr), wanted, closed)
        equal(host.kill(signal.SIGTERM), 0, 'exit code')


# ---- the tool ----

def test_chat():
    with Host() as host:
        fake = host.fake(log_bodies=True)
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        out = host.tool('chat', '-m', 'openai/fake?echo=1', stdin='from standard input')
        equal((out.returncode, out.stdout, out.stderr), (0, 'from standard input\n', ''), 'stdin')
        out = host.tool('chat', '-m', 'openai/fake?echo=1', 'two', 'words')
        equal(out.stdout, 'two words\n', 'arguments')
        out = host.tool('chat', 'x', LLMKIT_MODEL='openai/fake?echo=1')
        equal(out.stdout, 'x\n', 'LLMKIT_MODEL')
        out = host.tool('chat', '--usage', '-m', 'openai/fake', '-S', 'be brief', '-n', '77', '-t', '0.5',
                        'x')
        check('tokens' in out.stderr and 'finish: stop' in out.stderr, out.stderr)
        body = fake.arrivals()[-1]['body']
        equal(body['messages'], [{'role': 'system', 'content': 'be brief'},
                                 {'role': 'user', 'content': 'x'}], 'messages')
        equal((body['temperature'], body.get('max_tokens', body.get('max_completion_tokens'))),
              (0.5, 77), 'numbers')
        out = host.tool('chat', '-m', 'openai/fake?status=500', 'x')
        equal((out.returncode, out.stdout), (1, ''), 'a failure')
        check('LLMKIT_E_PROVIDER_ERROR' in out.stderr, out.stderr)
        out = host.tool('chat', '-m', 'openai/fake?chunks=9&no_terminal=1', 'x')
        equal(out.returncode, 1, 'cut')
        check(out.stdout and 'bytes of text' in out.stderr, out.stderr)
        out = run(TOOL, 'chat', '-m', 'openai/fake', '-s', host.socket, 'x', LLMKIT_SOCKET='/nowhere')
        equal(out.returncode, 0, '--socket is stronger than LLMKIT_SOCKET')


def test_chat_says_why_an_answer_is_not_whole():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake(), name='mine')],
                       limits=[{'user': 'once', 'requests': '1/day', 'burst': 1}])
        host.start()
        for reason in ('length', 'content_filter'):
            out = host.tool('chat', '-m', f'mine/fake?echo=1&finish={reason}', 'x')
            equal((out.returncode, out.stdout, out.stderr),
                  (0, 'x\n', f'llmkit: the answer was cut: finish reason {reason}\n'), reason)
        out = host.tool('chat', '-m', 'mine/fake?status=429&retry_after=3', 'x')
        equal(out.returncode, 1, 'limited by the provider')
        check(out.stderr.startswith('llmkit: LLMKIT_E_PROVIDER_LIMITED: [mine] '), out.stderr)
        check(out.stderr.endswith(' (retry in 3.0 s)\n'), out.stderr)
        host.tool('chat', '-m', 'mine/fake', '-u', 'once', 'x')
        out = host.tool('chat', '-m', 'mine/fake', '-u', 'once', '-T', '1', 'x')
        equal((out.returncode, out.stderr.count('retry in')), (1, 1), 'the message says it: ' + out.stderr)


def test_chat_names_the_largest_request():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())])
        host.start()
        out = host.tool('chat', '-m', 'openai/fake', stdin='x' * (17 << 20))
        equal(out.returncode, 1, 'too large')
        check('16 MiB' in out.stderr, out.stderr)


def test_chat_into_a_closed_pipe_ends():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        read_end, write_end = os.pipe()
        chat = subprocess.Popen(
            host.tool_command('chat', '-s', host.socket, '-m', 'openai/fake?chunks=100000&delay_ms=5', 'x'),
            stdout=write_end)
        host.workers.append(chat)
        os.close(write_end)
        check(os.read(read_end, 1), 'the answer begins')
        os.close(read_end)
        equal(chat.wait(30), -signal.SIGPIPE, 'as any filter ends')
        wait_for(lambda: fake.ends(), what='the provider call is stopped')


# ---- --check-config ----

def test_a_good_file_is_printed_and_what_is_printed_is_good():
    with Host() as host:
        fake = host.fake()
        host.configure(
            providers=[host.provider('openai', fake), host.provider('groq', fake, key={'env': 'MY_KEY'})],
            models=[{'name': 'small', 'provider': 'openai', 'upstream': 'gpt-4o-mini',
                     'price': {'input': '0.15', 'output': '0.60'}}],
            routes=[{'name': 'any', 'targets': ['small', 'groq/llama']},
                    {'name': 'best', 'strategy': 'balanced', 'price_cap': '0.07 USD',
                     'targets': [{'target': 'small', 'weight': 3}, 'groq/llama']}],
            limits=[{'user': 'alice', 'requests': '10/min', 'burst': 3, 'money': '$2.5/month'},
                    {'user': 'bob', 'model': 'small', 'tokens': '40k/min'}],
            templates={'per_user': 'default', 'per_key': {'concurrency': 77}},
            tables={'limits': 5000},
            access={'observers': {'everyone': True}}, drain_timeout='5s')
        with open(host.config, encoding='utf-8') as file:
            first = check_config(host, file.read())
        equal((first.returncode, first.stderr), (0, ''), 'good')
        for word in ('small', 'gpt-4o-mini', 'groq/llama', 'alice', '10/min', 'MY_KEY', host.key_file, '5s',
                     'balanced', '0.07 USD', '2.5 USD/month', '40000/min', 'concurrency: 77', 'limits: 5000',
                     'breaker: production'):
            check(word in first.stdout, f'{word} is in:\n{first.stdout}')
        check(KEY not in first.stdout, 'no key')
        second = check_config(host, first.stdout)
        equal(second.returncode, 0, second.stderr)
        equal(second.stdout.split('\n', 1)[1], first.stdout.split('\n', 1)[1], 'the same again')


BAD_FILES = (
    # text, line, column (0: any), words of the message
    ('sokcet: /tmp/x\n', 1, 1, ('sokcet', 'socket')),
    ('providers:\n  - name: a\n    family: nosuch\n', 3, 13, ('nosuch', 'openai')),
    ('providers:\n  - family: openai\n    key: sk-secret-0123456789abcdef\n', 3, 0,
     ('never written in the configuration',)),
    ('limits:\n  - {provider: x, requests: 10}\n', 2, 0, ('10',)),
    ('limits:\n  - {requests: 10/s}\n', 2, 0, ('provider', 'model', 'user')),
    ('limits:\n  - {user: a, tokens: 10k}\n', 2, 23, ('10k', '400k/min')),
    ('limits:\n  - {user: a, money: 5 USD/h}\n', 2, 22, ('5 USD/h', 'USD/month')),
    ('limits:\n  - {user: a, tokens: 1/s, requests: 1/s, burst: 3}\n', 2, 50, ('several resources',)),
    ('templates: {per_user: many}\n', 1, 23, ('many', 'unlimited')),
    ('tables: {limits: 0}\n', 1, 18, ('0', '524288')),
    ('routes:\n  - {name: a, targets: [nosuch/m]}\n', 2, 0, ('nosuch',)),
    ('routes:\n  - {name: a, strategy: best, targets: [x/m]}\n', 2, 25, ('best', 'round_robin')),
    ('log: {level: loud}\n', 1, 14, ('loud', 'debug')),
    ('drain_timeout: soon\n', 1, 16, ('soon',)),
    ('connections_per_user: -1\n', 1, 23, ('-1',)),
    ('features: {limiter: perhaps}\n', 1, 21, ('perhaps', 'true')),
    ('access: {participants: {users: [no-such-user]}}\n', 1, 0, ('no-such-user',)),
    ('socket: [a]\n', 1, 0, ('one value',)),
    ('a: b: c\n', 1, 0, ()),
    ('"unterminated\n', 0, 0, ()),
    ('log: &a {level: info}\nfeatures: *a\n', 0, 0, ()),
    ('\tsocket: x\n', 1, 0, ()),
    ('socket: "\x00"\n', 0, 0, ()),
    ('[' * 10000, 0, 0, ()),
)


def test_a_bad_file_is_refused_with_place_value_and_choice():
    with Host() as host:
        for text, line, column, words in BAD_FILES:
            out = check_config(host, text)
            equal((out.returncode, out.stdout), (2, ''), f'{text[:40]!r}: {out.stderr}')
            place = re.match(re.escape(host.config) + r':(\d+):(\d+): ', out.stderr)
            check(place, f'{text[:40]!r}: {out.stderr}')
            check(not line or int(place[1]) == line, f'line of {text!r}: {out.stderr}')
            check(not column or int(place[2]) == column, f'column of {text!r}: {out.stderr}')
            for word in words:
                check(word in out.stderr, f'{word!r} for {text!r}: {out.stderr}')
            check('sk-secret' not in out.stderr, 'a key is not repeated')


def test_every_error_of_a_file_is_told_at_once():
    with Host() as host:
        out = check_config(host, 'log: {level: loud}\ndrain_timeout: soon\nnonsense: 1\n')
        equal({line.split(':')[1] for line in out.stderr.splitlines()} >= {'3'}, True, out.stderr)
        out = check_config(host, 'log: {level: loud}\ndrain_timeout: soon\n')
        equal(sorted(line.split(':')[1] for line in out.stderr.splitlines()), ['1', '2'], out.stderr)


# ---- no file at all ----

def start_without_file(host, **environment):
    host.environment.update(environment)
    host.daemon = host.spawn()
    return host.daemon


def test_zero_configuration():
    if os.path.exists('/etc/llmkit/llmkitd.yaml'):
        raise Skip('this machine has a configuration')
    with Host() as host:
        fake = host.fake()
        start_without_file(
            host, LLMKIT_SOCKET=host.socket, OPENAI_API_KEY='sk-one', ANTHROPIC_API_KEY='sk-two',
            OPENAI_BASE_URL=f'http://localhost:{fake.plain_port}/v1',
            ANTHROPIC_BASE_URL=f'http://localhost:{fake.plain_port}')
        host.wait_ready()
        for model in ('openai/fake', 'anthropic/fake'):
            equal(last_of(host.chat('x', '-m', model))['type'], 'end', model)
        equal({p['name'] for p in host.status()['providers']}, {'openai', 'anthropic'}, 'providers')
        equal(host.status()['configuration'], 'environment', 'source')
        equal(len({a['key_sha'] for a in fake.arrivals()}), 2, 'each its key')


def test_without_any_key_it_runs_and_says_so():
    if os.path.exists('/etc/llmkit/llmkitd.yaml'):
        raise Skip('this machine has a configuration')
    with Host() as host:
        start_without_file(host, LLMKIT_SOCKET=host.socket)
        host.wait_ready()
        check('OPENAI_API_KEY' in host.log_text(), 'what to set')
        error = last_of(host.chat('x', '-m', 'openai/fake'))
        equal(error['code'], 'LLMKIT_E_UNKNOWN_MODEL', 'a request')
        check('OPENAI_API_KEY' in error['message'] or 'provider' in error['message'], error)


# ---- paths ----

def socket_of(host, *arguments, **environment):
    """Where a daemon listens: from its log."""
    before = len(host.log_text())
    host.environment = environment
    daemon = host.spawn(*arguments)
    host.workers.append(daemon)
    wait_for(lambda: 'ready socket=' in host.log_text()[before:] or daemon.poll() is not None,
             what='it is ready')
    check(daemon.poll() is None, host.log_text()[before:])
    path = host.log_text()[before:].split('ready socket=')[1].split()[0]
    daemon.terminate()
    equal(daemon.wait(30), 0, 'exit code')
    return path


def test_paths():
    with Host() as host:
        runtime = os.path.join(host.folder, 'run')
        os.mkdir(runtime, 0o700)
        in_file, in_variable, in_argument = (os.path.join(host.folder, n + '.sock') for n in 'fva')
        host.configure(socket=in_file, providers=[])
        config = ('--config', host.config)
        equal(socket_of(host, *config, XDG_RUNTIME_DIR=runtime), in_file, 'the file')
        equal(socket_of(host, *config, LLMKIT_SOCKET=in_variable), in_variable, 'LLMKIT_SOCKET')
        equal(socket_of(host, *config, '--socket', in_argument, LLMKIT_SOCKET=in_variable), in_argument,
              '--socket')
        with open(host.config, 'w', encoding='utf-8') as file:
            file.write('providers: []\n')
        default = os.path.join(runtime, 'llmkit', 'llmkit.sock')
        equal(socket_of(host, *config, XDG_RUNTIME_DIR=runtime), default, 'XDG_RUNTIME_DIR')
        equal(os.stat(os.path.dirname(default)).st_mode & 0o777, 0o700, "a user's folder")
        equal(socket_of(host, LLMKIT_CONFIG=host.config, XDG_RUNTIME_DIR=runtime), default, 'LLMKIT_CONFIG')
        out = run(TOOL, 'status', XDG_RUNTIME_DIR=runtime)
        check(default in out.stderr, f'the tool looks there too: {out.stderr}')


def test_a_user_has_a_file_under_xdg_config_home():
    if os.geteuid() == 0:
        # As another user, whose file it then must be.
        user = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []}
    else:
        user = {}
    with Host() as host:
        folder = os.path.join(host.folder, 'config', 'llmkit')
        os.makedirs(folder)
        with open(os.path.join(folder, 'llmkitd.yaml'), 'w', encoding='ascii') as file:
            file.write(f'socket: {host.socket}\nproviders: []\nlog: {{level: debug}}\n')
        for variables in ({'XDG_CONFIG_HOME': os.path.join(host.folder, 'config')}, {'HOME': host.folder}):
            if 'HOME' in variables:
                os.rename(os.path.join(host.folder, 'config'), os.path.join(host.folder, '.config'))
            host.environment = variables
            host.daemon = host.spawn_copy(**user)
            host.wait_ready()
            check(host.status()['configuration'].startswith(host.folder), host.status())
            equal(host.kill(signal.SIGTERM), 0, 'exit code')


def test_a_path_that_cannot_be_used():
    with Host() as host:
        host.configure(socket=os.path.join(host.folder, 'no', 'such', 'folder', 's.sock'), providers=[])
        equal(host.spawn('--config', host.config).wait(30), 1, 'folder')
        check(os.path.join(host.folder, 'no', 'such', 'folder') in host.log_text(), 'named')
        host.configure(socket='/' + 'x' * 200, providers=[])
        equal(host.spawn('--config', host.config).wait(30), 2, 'too long')
        with open(host.socket, 'w', encoding='ascii') as file:
            file.write('a file of somebody')
        host.configure(providers=[])
        equal(host.spawn('--config', host.config).wait(30), 1, 'a file in the way')
        with open(host.socket, encoding='ascii') as file:
            equal(file.read(), 'a file of somebody', 'it is left alone')
        check('cannot start; the reason is above' in host.log_text(), 'and not an errno of chance')
        check('rror -' not in host.log_text(), host.log_text())


def test_a_key_that_the_daemon_refuses_is_refused_by_the_check():
    with Host() as host:
        os.chmod(host.key_file, 0o644)
        host.configure(providers=[{'name': 'openai', 'key': {'file': host.key_file}}])
        check_out = run(DAEMON, '--check-config', host.config)
        equal((check_out.returncode, check_out.stdout), (2, ''), 'the check')
        check(f'chmod 600 {host.key_file}' in check_out.stderr, check_out.stderr)
        equal(host.spawn('--config', host.config).wait(30), 2, 'the daemon')
        check(check_out.stderr in host.log_text(), 'says the same')


# ---- features ----

def test_features_can_be_off():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake())], features={'router': False},
                       routes=[{'name': 'r', 'targets': ['openai/fake']}])
        host.start()
        error = last_of(host.chat('x', '-r', 'r'))
        equal(error['type'], 'error', 'no routes')
        check('router' in error['message'] or 'route' in error['message'], error)
        equal(text_of(host.chat('x', '-m', 'openai/fake?echo=1')), 'x', 'the rest works')
        equal(json.loads(host.tool('status', '--json').stdout)['router'], False, 'status says so')


if __name__ == '__main__':
    main()
