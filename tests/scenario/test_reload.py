#!/usr/bin/env python3
"""SIGHUP: what changes, what stays, and that a mistake changes nothing."""
import json
import os
import signal
import subprocess
import threading

from clients import Member, ask, each
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


class Load:
    """Members that ask for one limit in a loop, from before the reloads to after them."""

    def __init__(self, host, ask_once, members=4):
        self.stop = threading.Event()
        self.admitted, self.tries = 0, 0
        self.lock = threading.Lock()
        self.members = [Member(host) for _ in range(members)]
        for member in self.members:
            member.good('scope', provider='p')
        self.thread = threading.Thread(target=each, args=(self.members, self.run))
        self.ask_once = ask_once
        self.thread.start()
        wait_for(lambda: self.tries > 100, what='load')

    def run(self, member):
        while not self.stop.is_set():
            admitted = self.ask_once(member)
            with self.lock:
                self.tries += 1
                self.admitted += admitted

    def end(self):
        """How many were admitted."""
        before = self.tries
        wait_for(lambda: self.tries > before + 100, what='load that goes on')
        self.stop.set()
        self.thread.join(60)
        return self.admitted


def lease_a_token(member):
    good = member.do('lease', slot=0, requests=1, input=1, output=0)['code'] == 'LLMKIT_OK'
    if good:
        member.do('settle', slot=0, input=1, output=0)
    return good


def acquire(member):
    return member.do('acquire', n=1)['code'] == 'LLMKIT_OK'


def test_no_token_more_is_admitted_while_the_way_of_counting_changes():
    with Host() as host:
        fake = host.fake()

        def sections(tokens):
            return {'providers': [host.provider('openai', fake, name='p', tokens=tokens)],
                    'limits': [{'provider': 'p', 'user': f'u{i}', 'requests': '1/s'} for i in range(2000)] +
                              [{'provider': 'p', 'tokens': '1/h', 'burst': 20}],
                    'log': {'level': 'notice'}}

        host.configure(**sections('actual'))
        host.start()
        load = Load(host, lease_a_token)
        for i in range(20):
            reload(host, **sections('actual' if i % 2 else 'reserve'))
        check(1 <= load.end() <= 21, f'admitted by a limit of 20 and 1 an hour: {load.admitted}')


def test_reloads_that_fail_admit_nothing():
    with Host() as host:
        provider = host.provider('openai', host.fake(), name='p')
        routes = [{'name': f'r{i}', 'targets': [f'p/x{i}-{k}' for k in range(8)]} for i in range(8)]
        host.configure(providers=[provider], limits=limit(20, provider='p'), tables={'targets': 16})
        host.start()
        load = Load(host, acquire)
        host.configure(providers=[provider], routes=routes)
        for _ in range(20):
            reload(host, good=False)
        out = host.tool('reload')
        check(1 <= load.end() <= 21, f'admitted by a limit of 20 and 5 a day: {load.admitted}')
        check(out.returncode != 0 and "the daemon's log says what" in out.stdout + out.stderr, out)
        check('too many providers, models and targets of routes' in host.log_text(), 'the reason')


def test_a_template_that_counts_in_another_way_keeps_what_is_owed():
    with Host() as host:
        fake = host.fake()
        models = [{'name': 'm', 'provider': 'p', 'upstream': 'fake?input_tokens=100&output_tokens=100'}]
        templates = {'per_provider': {'tokens': '1/h', 'burst': {'tokens': 500}}}

        def sections(tokens):
            return {'providers': [host.provider('openai', fake, name='p', tokens=tokens)],
                    'models': models, 'templates': templates}

        host.configure(**sections('actual'))
        host.start()
        first = [ask(host, 'm', max_tokens=100)['status'] for _ in range(5)]
        check(first.count(0) >= 2 and first[-1] != 0, f'until the 500 are used: {first}')
        for tokens in ('reserve', 'actual'):
            reload(host, **sections(tokens))
            check(ask(host, 'm', max_tokens=100)['status'] != 0, f'still used, {tokens}')


def test_what_an_operator_opened_outlives_reloads_and_other_names():
    with Host() as host:
        host.configure(providers=[host.provider('openai', host.fake(), name='p')], tables={'targets': 32},
                       limits=limit(1000, provider='p'))
        host.start()
        equal(ask(host, 'p/bad')['status'], 0)
        equal(host.tool('breakers', 'open', 'p/bad').returncode, 0)
        for i in range(40):
            equal(ask(host, f'p/x{i}')['status'], 0)
        for _ in range(2):
            check(ask(host, 'p/bad')['status'] != 0, 'it stays open')
            check('p/bad' in host.tool('breakers').stdout, 'and listed')
            reload(host)
        equal(host.tool('limits', 'reset', 'provider p requests').returncode, 0)
        equal(host.tool('breakers', 'close', 'p/bad').returncode, 0)
        equal(ask(host, 'p/bad')['status'], 0, 'until he closes it')
        for act in ('breaker-open p/bad', 'limit-reset provider p requests', 'breaker-close p/bad'):
            check('operator: ' + act in host.log_text(), act)


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
