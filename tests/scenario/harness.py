"""One host for a scenario: a temporary folder with fake providers, a daemon and the tool.

    with Host() as host:
        fake = host.fake()
        host.configure(providers=[host.provider('openai', fake)])
        host.start()
        out = host.chat('hello', model='openai/gpt-4o')
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire  # noqa: E402
from fakeprovider import FakeProvider  # noqa: E402
from tap import check, equal, wait_for  # noqa: E402

BUILD = os.environ.get('PROJECT_BUILD', os.path.join(os.getcwd(), 'build'))
SOURCE = os.environ.get('PROJECT_SOURCE', os.getcwd())
NOBODY = 65534
KEY = 'sk-canary-0123456789abcdefghijklmnop'

# Nothing of the caller's environment reaches the daemon but what running needs.
PASSED_ON = ('PATH', 'LANG', 'LC_ALL', 'ASAN_OPTIONS', 'UBSAN_OPTIONS', 'TSAN_OPTIONS', 'LSAN_OPTIONS',
             'LD_PRELOAD')


def clean_environment(**more):
    environment = {k: os.environ[k] for k in PASSED_ON if k in os.environ}
    environment.update(more)
    return environment


def yaml_of(value, depth=0):
    """Enough YAML for configurations made of dicts, lists and scalars: JSON is YAML."""
    return json.dumps(value)


def sanitized():
    """Whether the programs are of a -Db_sanitize build."""
    with open(os.path.join(BUILD, 'daemon', 'llmkitd'), 'rb') as file:
        program = file.read()
    return b'__asan_init' in program or b'__tsan_init' in program


class Host:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='llmkit-test-')
        os.chmod(self.folder, 0o755)
        self.socket = os.path.join(self.folder, 'llmkit.sock')
        self.region = os.path.join(self.folder, 'llmkit.control')
        self.config = os.path.join(self.folder, 'llmkitd.yaml')
        self.log = os.path.join(self.folder, 'llmkitd.log')
        self.key_file = os.path.join(self.folder, 'key')
        with open(self.key_file, 'w', encoding='ascii') as file:
            file.write(KEY + '\n')
        os.chmod(self.key_file, 0o600)
        self.fakes = []
        self.workers = []
        self.daemon = None
        self.environment = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for process in [self.daemon, *self.workers]:
            if process and process.poll() is None:
                process.kill()
                process.wait()
        for fake in self.fakes:
            fake.stop()
            fake.remove()
        if kind and os.path.exists(self.log):
            with open(self.log, encoding='utf-8', errors='replace') as file:
                for line in file.read().splitlines()[-40:]:
                    print('# llmkitd:', line)
        # Where the folder is no tmpfs the regions in it are links.
        for link in glob.glob(os.path.join(self.folder, '**', '*.control'), recursive=True):
            target = os.path.realpath(link)
            for name in (target, target + '.unusable'):
                if os.path.exists(name):
                    os.unlink(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fake(self, **options):
        options.setdefault('log', True)
        fake = FakeProvider(**options)
        self.fakes.append(fake)
        return fake.start()

    def provider(self, family, fake, tls=False, name=None, **more):
        port = fake.tls_port if tls else fake.plain_port
        base = f'{"https" if tls else "http"}://localhost:{port}' + \
            ('/v1' if family != 'anthropic' else '')
        row = {'name': name or family, 'family': family, 'base_url': base,
               'key': {'file': self.key_file}}
        if tls:
            row['ca_file'] = fake.ca_file
        row.update(more)
        return row

    def configure(self, **sections):
        sections.setdefault('socket', self.socket)
        sections.setdefault('log', {'level': 'debug'})
        with open(self.config, 'w', encoding='utf-8') as file:
            file.write(yaml_of(sections) + '\n')

    def spawn(self, *arguments, **options):
        """The daemon's process, with its log appended to self.log."""
        with open(self.log, 'ab') as log:
            return subprocess.Popen(
                [os.path.join(BUILD, 'daemon', 'llmkitd'), *arguments], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=clean_environment(**self.environment), **options)

    def spawn_copy(self, *arguments, **options):
        """As spawn(), as another user (user=, group=): who may not be able to reach the build."""
        program = os.path.join(self.folder, 'llmkitd')
        shutil.copy(os.path.join(BUILD, 'daemon', 'llmkitd'), program)
        if 'user' in options:
            for path in (self.folder, self.key_file):
                os.chown(path, options['user'], options['group'])
        with open(self.log, 'ab') as log:
            return subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd='/',
                env=clean_environment(**self.environment), **options)

    def start(self, **options):
        self.daemon = self.spawn('--config', self.config, **options)
        self.wait_ready()
        return self.daemon

    def wait_ready(self):
        def ready():
            check(self.daemon.poll() is None, 'the daemon ended: ' + self.log_text()[-2000:])
            # The socket of one just killed may take connections for a moment: ask who it is.
            try:
                client = wire.Client(self.socket)
            except (OSError, wire.Lost):
                return False
            client.close()
            return client.welcome['daemon_pid'] == self.daemon.pid
        wait_for(ready, 30, 'the daemon listens')

    def kill(self, number=signal.SIGKILL):
        self.daemon.send_signal(number)
        return self.daemon.wait(30)

    def log_text(self):
        if not os.path.exists(self.log):
            return ''
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return file.read()

    def tool_command(self, *arguments):
        return [os.path.join(BUILD, 'tools', 'llmkit'), *arguments]

    def tool(self, *arguments, stdin='', timeout=60, **environment):
        return subprocess.run(
            self.tool_command(*arguments), input=stdin, capture_output=True, text=True,
            timeout=timeout, check=False,
            env=clean_environment(LLMKIT_SOCKET=self.socket, **environment))

    def chat(self, prompt, *arguments, **options):
        """Events of one request, as `llmkit chat --json` prints them."""
        out = self.tool('chat', '--json', *arguments, prompt, **options)
        return [json.loads(line) for line in out.stdout.splitlines()]

    def status(self):
        out = self.tool('status', '--json')
        check(out.returncode == 0, out.stderr)
        return json.loads(out.stdout)

    def dump(self):
        out = self.tool('dump', '--json')
        check(out.returncode == 0, out.stderr)
        return json.loads(out.stdout)


    def participants(self, dump=None):
        """The clients' rows. The daemon has one of its own, and so may this process, which keeps the
        row of a connection that it closed for as long as it lives."""
        dump = dump or self.dump()
        others = (dump['header']['daemon_pid'], os.getpid())
        return [p for p in dump['participants'] if p['pid'] not in others]

    def load(self, model, expect, *arguments):
        """A worker process that keeps requests going (load.c) and writes JSON lines to .out."""
        with tempfile.NamedTemporaryFile('w', dir=self.folder, encoding='utf-8', delete=False) as file:
            file.write(expect)
        out = tempfile.NamedTemporaryFile(dir=self.folder, suffix='.load', delete=False)
        worker = subprocess.Popen(
            [os.path.join(BUILD, 'tests', 'scenario', 'scenario-load'), '--model', model, '--expect',
             file.name, *arguments], stdout=out, env=clean_environment(LLMKIT_SOCKET=self.socket))
        worker.out = out.name
        self.workers.append(worker)
        return worker

    def finish_load(self, worker, stop=True):
        """Its lines; the last is the total. Fails when something happened that never must."""
        if stop:
            worker.terminate()
        worker.wait(60)
        with open(worker.out, encoding='utf-8') as file:
            lines = [json.loads(line) for line in file]
        for line in lines:
            check(line['event'] != 'bad', line)
        equal(worker.returncode, 0, 'exit code of a load worker')
        equal(lines[-1]['event'], 'total', 'last line')
        return lines

    def resident(self):
        """KiB of the daemon's memory now; 0 in a sanitized build, which keeps what is freed."""
        if sanitized():
            return 0
        with open(f'/proc/{self.daemon.pid}/status', encoding='ascii') as file:
            return int([line for line in file if line.startswith('VmRSS:')][0].split()[1])


def rest_of(process):
    """What it still writes, after a readline() of its output: communicate() would lose what that
    left in its buffer."""
    out = process.stdout.read()
    process.wait(30)
    return out


def text_of(events):
    return ''.join(e['text'] for e in events if e['type'] == 'text')


def last_of(events):
    check(events, 'no events at all')
    return events[-1]
