#!/usr/bin/env python3
"""House rules that a program can check (HACKING.md): direction of includes, homes of third-party
headers, sizes, banned calls, leftover marks. Prints TAP. `tidy.py --self-test` shows that each
check fails on a bad tree."""
import os
import re
import subprocess
import sys
import tempfile

MAY_INCLUDE = {
    'base': {'base'},
    'proto': {'base', 'proto'},
    'shm': {'base', 'shm'},
    'libclient': {'base', 'proto', 'shm', 'libclient'},
    'daemon': {'base', 'proto', 'shm', 'daemon'},
    'tools': {'base', 'proto', 'shm', 'libclient', 'tools'},
    'examples': set(),
    'bindings': {'libclient'},
}
HOMES = {
    r'liburing\.h': ['daemon/io/loop_uring.c'],
    r'curl/.*': ['daemon/io/transport.c', 'examples/own_http.c'],
    r'llhttp\.h': ['daemon/io/http1.c'],
    r'openssl/.*': [],
    r'msgpack.*': ['proto/msg.c'],
    r'yyjson\.h': ['proto/json.c', 'daemon/formats/'],
    r'cyaml/.*': ['daemon/config/config.c'],
    r'yaml\.h': ['daemon/config/config_where.c'],
}
STAGES = ['route', 'admission', 'sse']
LAYOUT_READERS = ['shm/', 'docs/', 'tests/', 'tools/cmd_dump.c', 'tools/dump_tables.c']
BANNED = r'\b(sprintf|strcpy|strcat|gets|system|alloca|vsprintf)\s*\('
STAGE_BANNED = (r'\b(clock_\w+_ns|clock_gettime|time|gettimeofday|open|read|write|send|recv|socket|connect)'
                r'\s*\(')
LIMITS = {'.c': 800, '.h': 250}
LONG_HEADERS = {'libclient/llmkit.h', 'shm/layout.h'}
SHAPED = [*MAY_INCLUDE, 'tests', 'bench', 'docs']


def read(root, path):
    with open(os.path.join(root, path), encoding='utf-8') as file:
        return file.read()


def sources(root, folders):
    for folder in folders:
        for base, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if name.endswith(('.c', '.h')):
                    yield os.path.relpath(os.path.join(base, name), root)


def includes(text):
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.M)


def stem(path):
    return os.path.splitext(os.path.basename(path))[0]


def is_stage(path):
    return path.startswith('daemon/formats/') or (path.startswith('daemon/') and stem(path) in STAGES)


def check_direction(root):
    for path in sources(root, MAY_INCLUDE):
        folder = path.split('/')[0]
        for kind, name in includes(read(root, path)):
            if kind != '"':
                continue
            target = name.split('/')[0]
            if '/' not in name or not os.path.exists(os.path.join(root, name)):
                yield f'{path}: "{name}" is not written from the root'
            elif target not in MAY_INCLUDE[folder]:
                yield f'{path}: {folder} may not include {name}'


def check_homes(root):
    for path in sources(root, MAY_INCLUDE):
        for kind, name in includes(read(root, path)):
            for pattern, homes in HOMES.items():
                if kind == '<' and re.fullmatch(pattern, name) and not any(
                        path == home or (home.endswith('/') and path.startswith(home)) for home in homes):
                    yield f'{path}: <{name}> belongs to {", ".join(homes) or "tests"} only'


def check_stages(root):
    for path in sources(root, ['daemon']):
        names = [name for kind, name in includes(read(root, path)) if kind == '"']
        if is_stage(path):
            for name in names:
                own = stem(name) == stem(path) or (
                    path.startswith('daemon/formats/') and name in ('daemon/sse.h',))
                if name.startswith('daemon/') and not own and not name.startswith('daemon/formats/') \
                        and name != 'daemon/config/config.h':
                    yield f'{path}: a stage includes {name}'
            for call in re.findall(STAGE_BANNED, re.sub(r'/\*.*?\*/', '', read(root, path), flags=re.S)):
                yield f'{path}: a stage calls {call}()'
        elif path.startswith('daemon/io/') or path.startswith('daemon/control.'):
            for name in names:
                if is_stage(name) or name in ('daemon/pipeline.h', 'daemon/request.h'):
                    yield f'{path}: an I/O file includes {name}'


def check_layout_readers(root):
    for path in sources(root, [f for f in MAY_INCLUDE] + ['docs', 'tests', 'bench']):
        allowed = any(path.startswith(prefix) for prefix in LAYOUT_READERS)
        if not allowed and '"shm/layout.h"' in read(root, path):
            yield f'{path}: shm/layout.h is for shm/ only; use the accessors'


def check_sizes(root):
    for path in sources(root, SHAPED):
        lines = read(root, path).split('\n')
        limit = LIMITS[os.path.splitext(path)[1]]
        if len(lines) > limit and path not in LONG_HEADERS:
            yield f'{path}: {len(lines)} lines, at most {limit}'
        for number, line in enumerate(lines, 1):
            width = len(line.expandtabs(8))
            if width > 100:
                yield f'{path}:{number}: {width} columns, at most 100'


def check_functions(root):
    paths = [p for p in sources(root, [f for f in MAY_INCLUDE if os.path.isdir(os.path.join(root, f))])
             if p.endswith('.c')]
    if not paths:
        return
    out = subprocess.run(['ctags', '--languages=C', '--kinds-C=f', '--fields=+ne', '-f', '-'] + paths,
                         cwd=root, capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        begin = re.search(r'\tline:(\d+)', line)
        end = re.search(r'\tend:(\d+)', line)
        name, path = line.split('\t')[:2]
        if begin and end and int(end[1]) - int(begin[1]) + 1 > 70:
            yield f'{path}:{begin[1]}: {name}() has {int(end[1]) - int(begin[1]) + 1} lines, at most 70'


def check_words(root):
    for path in sources(root, MAY_INCLUDE):
        text = read(root, path)
        for call in re.findall(BANNED, re.sub(r'/\*.*?\*/', '', text, flags=re.S)):
            yield f'{path}: {call}() is banned'
        for mark in re.findall(r'\b(TODO|FIXME|XXX|HACK)\b', text):
            yield f'{path}: a leftover {mark}'


def check_mutations(root):
    """Each edit of a deliberately broken build finds its place, and one only."""
    path = 'tests/mutations/broken.py'
    if not os.path.exists(os.path.join(root, path)):
        return
    scope = {}
    exec(compile(read(root, path), path, 'exec'), scope)
    for name, edits, _ in scope['MUTATIONS']:
        for file, text, _ in edits:
            found = read(root, file).count(text) if os.path.exists(os.path.join(root, file)) else 0
            if found != 1:
                yield f'{path}: {name}: in {file} {found} times, not once: {text!r}'


CHECKS = [check_direction, check_homes, check_stages, check_layout_readers, check_sizes,
          check_functions, check_words, check_mutations]

BAD_TREE = {
    'check_direction': {'shm/a.c': '#include "daemon/b.h"\n', 'daemon/b.h': ''},
    'check_homes': {'daemon/a.c': '#include <curl/curl.h>\n'},
    'check_stages': {'daemon/route.c': '#include "daemon/io/loop.h"\n', 'daemon/io/loop.h': ''},
    'check_layout_readers': {'tools/a.c': '#include "shm/layout.h"\n', 'shm/layout.h': ''},
    'check_sizes': {'tests/unit/a.c': 'int a;\n' * 900},
    'check_functions': {'base/a.c': 'int f(void)\n{\n' + '\tg();\n' * 80 + '}\n'},
    'check_words': {'base/a.c': 'void f(char *a) { strcpy(a, a); }\n'},
    'check_mutations': {'tests/mutations/broken.py': "MUTATIONS = [('a', [('base/a.c', 'b', 'c')], [])]\n",
                        'base/a.c': 'int b, bb;\n'},
}


def self_test(check):
    with tempfile.TemporaryDirectory() as root:
        for path, text in BAD_TREE[check.__name__].items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), 'w', encoding='utf-8') as file:
                file.write(text)
        return [] if list(check(root)) else ['does not fail on a bad tree']


def main():
    root = os.environ.get('PROJECT_SOURCE', os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(f'1..{2 * len(CHECKS)}')
    number = bad = 0
    for check in CHECKS:
        for what, problems in ((check.__name__, list(check(root))),
                               (check.__name__ + ' has teeth', self_test(check))):
            number += 1
            bad += bool(problems)
            for problem in problems:
                print('#', problem)
            print(f'{"not ok" if problems else "ok"} {number} - {what}')
    return bad != 0


if __name__ == '__main__':
    sys.exit(main())
