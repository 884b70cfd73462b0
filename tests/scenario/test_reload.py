#!/usr/bin/env python3
"""SIGHUP: what changes, what stays, and that a mistake changes nothing."""
import json
import os
import signal
import subprocess

from harness import Host, clean_environment, last_of, rest_of
from tap import check, equal, main, wait_for


def reload(host, good=True, **sections):
    text = 'configuration reloaded' if good else 'reload failed'
    before = host.log_text().count(text)
    if sections:
        host.configure(**sections)
    host.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: host.log_text().count(text) > before, what=text)


def answer(host, model='openai/fake', *arguments):
    event = last_of(host.chat('x', '-m', model, *arguments))
    return event.get('code', event['type'])


def admitted(host, tries):
    return [answer(host) for _ in range(tries)].count('end')


def limit(burst, **scope):
    return [{**(scope or {'provider': 'openai'}), 'requests': '5/day', 'burst': burst}]


def test_a_changed_limit_applies_and_debt_is_kept():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=limit(5))
        host.start()
        equal(admitted(host, 3), 3, 'of a burst of 5')
        reload(host, providers=providers, limits=limit(4))
        equal(admitted(host, 3), 1, 'the three taken count against the new burst of 4')
        reload(host, providers=providers, limits=limit(10))
        equal(admitted(host, 8), 6, 'and the four against one of 10')
        reload(host)
        equal(admitted(host, 1), 0, 'reloading alone gives nothing')


def test_limits_come_and_go():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers)
        host.start()
        equal(admitted(host, 2), 2, 'no limit')
        reload(host, providers=providers, limits=limit(1) + limit(1, user='u'))
        equal({row['name'] for row in host.status()['limits']}, {'openai', 'u'}, 'status')
        equal(admitted(host, 2), 1, 'a limit')
        reload(host, providers=providers, limits=limit(1, user='u'))
        equal(admitted(host, 2), 2, 'gone again')
        equal([row['name'] for row in host.dump()['limits']], ['u'], 'dump')
        reload(host, providers=providers, limits=limit(1))
        equal(admitted(host, 1), 0, 'back, with what was owed: a reload is no way to a new burst')


MISTAKES = (
    ('limits: [{provider: openai, requests: fast}]\n', 1, 'requests'),
    ('\n\nlimits:\n  - provider: nosuch\n    requests: 5/s\n', 4, 'nosuch'),
    ('providers:\n  - {name: a, family: b}\n', 2, 'family'),
    ('nonsense: 1\n', 1, 'nonsense'),
    ('a: [\n', 0, ''),
)


def test_a_mistake_changes_nothing():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=limit(3))
        host.start()
        before = host.status()
        for text, line, word in MISTAKES:
            with open(host.config, 'w', encoding='utf-8') as file:
                file.write(text)
            reload(host, good=False)
            said = host.log_text().split('reload failed')[-1]
            check(f'{host.config}:{line or ""}' in said and word in said, said)
            if line:
                position = said.split(f'{host.config}:')[1].split(' ')[0]
                check(position.split(':')[0] == str(line) and position.split(':')[1].isdigit(), said)
        os.unlink(host.config)
        reload(host, good=False)
        for name in ('providers', 'models', 'routes', 'limits', 'pid', 'state'):
            equal(host.status()[name], before[name], name)
        equal(admitted(host, 4), 3, 'it goes on with the limit it had')


def test_limits_that_cannot_be_enforced_are_not_served():
    never = [{'user': 'a', 'requests': '1/day', 'burst': 999999999999}]
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=never)
        equal(host.spawn('--config', host.config).wait(30) in (1, 2), True, 'no start')
        host.configure(providers=providers, limits=limit(3))
        host.start()
        before = host.status()['limits']
        reload(host, good=False, providers=[], limits=limit(9, user='b') + never)
        equal(host.status()['limits'], before, 'the old limits')
        equal(admitted(host, 4), 3, 'are enforced')


def test_a_running_stream_goes_on():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers)
        host.start()
        chat = subprocess.Popen(
            host.tool_command('chat', '--json', '-m', 'openai/fake?chunks=80&delay_ms=20', 'x'),
            stdout=subprocess.PIPE, text=True, env=clean_environment(LLMKIT_SOCKET=host.socket))
        host.workers.append(chat)
        check('"start"' in chat.stdout.readline(), 'the answer begins')
        reload(host, providers=[host.provider(f, host.fakes[0]) for f in ('groq', 'anthropic')])
        reload(host)
        equal(answer(host), 'LLMKIT_E_UNKNOWN_MODEL', 'its provider is gone')
        equal(answer(host, 'groq/fake'), 'end', 'another is there')
        check(chat.poll() is None, 'the stream still runs')
        out = rest_of(chat)
        events = [json.loads(line) for line in out.splitlines()]
        equal(events[-1]['type'], 'end', 'and ends well')
        equal(len([e for e in events if e['type'] == 'text']), 80, 'with all of it')


def test_a_rotated_key_is_used_from_then_on():
    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        equal(answer(host), 'end')
        for text, mode, good in (('sk-the-second-key', 0o600, True), ('sk-no', 0o644, False),
                                 ('two words', 0o600, False), ('sk-the-third-key', 0o600, True)):
            with open(host.key_file + '.new', 'w', encoding='ascii') as file:
                file.write(text)
            os.chmod(file.name, mode)
            os.rename(file.name, host.key_file)
            reload(host, good)
            said = host.log_text().split('the old configuration stays: ')[-1]
            check(good or host.key_file in said.split('\n')[0], f'the cause: {said}')
            equal(answer(host), 'end', text)
        keys = [a['key_sha'] for a in fake.arrivals()]
        equal([keys.index(k) for k in keys], [0, 1, 1, 1, 4], 'first, second three times, third')


def test_a_key_from_the_environment_survives_reloads():
    with Host() as host:
        fake = host.fake()
        provider = host.provider('openai', fake)
        del provider['key']
        host.environment['OPENAI_API_KEY'] = 'sk-from-the-environment'
        host.configure(providers=[provider])
        host.start()
        for _ in range(3):
            equal(answer(host), 'end')
            reload(host)
        equal(len({a['key_sha'] for a in fake.arrivals()}), 1, 'one key')


def test_providers_models_and_routes_change():
    with Host() as host:
        first, second = host.fake(), host.fake()
        host.configure(providers=[host.provider('openai', first)],
                       models=[{'name': 'small', 'provider': 'openai', 'upstream': 'up-1'}])
        host.start()
        equal(answer(host, 'small'), 'end')
        reload(host, providers=[host.provider('openai', second), host.provider('anthropic', second)],
               models=[{'name': 'small', 'provider': 'anthropic', 'upstream': 'up-2'}],
               routes=[{'name': 'any', 'targets': ['openai/up-3']}])
        equal(answer(host, 'small'), 'end')
        equal(last_of(host.chat('x', '-r', 'any'))['type'], 'end', 'route')
        equal([a['model'] for a in first.arrivals()], ['up-1'], 'the old address')
        equal([a['model'] for a in second.arrivals()], ['up-2', 'up-3'], 'the new one')


def test_level_features_and_socket():
    with Host() as host:
        providers = [host.provider('openai', host.fake())]
        host.configure(providers=providers, limits=limit(1), log={'level': 'notice'})
        host.start()
        equal(admitted(host, 2), 1, 'limited')
        check('debug:' not in host.log_text(), 'quiet')
        reload(host, providers=providers, limits=limit(1), features={'limiter': False},
               socket=host.socket + '2')
        equal(admitted(host, 2), 2, 'limits are off')
        check('debug:' in host.log_text(), 'the level of the new configuration')
        check('a new socket path needs a restart' in host.log_text(), 'said')
        check(not os.path.exists(host.socket + '2'), 'kept')


if __name__ == '__main__':
    main()
