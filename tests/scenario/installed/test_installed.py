#!/usr/bin/env python3
"""Installs into an empty directory and uses nothing but what is there, as a user would."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..'))
import tap  # noqa: E402

BUILD, SOURCE, PREFIX = sys.argv[1:4]
ROOT = tempfile.mkdtemp(prefix='llmkit-installed-')
FLAGS = ['-Wall', '-Wextra', '-Wpedantic', '-Werror']


def run(*command, **kwargs):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, **kwargs)
    return done.returncode, done.stdout


def good(*command, **kwargs):
    code, text = run(*command, **kwargs)
    tap.check(code == 0, f'{" ".join(command)} ended with {code}:\n{text}')
    return text


def installed():
    if not os.listdir(ROOT):
        good('meson', 'install', '--no-rebuild', '-C', BUILD, env=dict(os.environ, DESTDIR=ROOT))


def find(name):
    installed()
    for folder, _, files in os.walk(ROOT):
        if name in files:
            return os.path.join(folder, name)
    raise AssertionError(f'{name} was not installed')


def pkg_config(*arguments):
    system = good('pkg-config', '--variable=pc_path', 'pkg-config').strip()
    environment = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=ROOT,
                       PKG_CONFIG_PATH=os.path.dirname(find('llmkit.pc')),
                       PKG_CONFIG_LIBDIR=system)
    return good('pkg-config', *arguments, 'llmkit', env=environment).split()


def library_path():
    return dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(find('libllmkit.so.0')))


def build(name):
    program = os.path.join(ROOT, name)
    good('cc', '-std=gnu11', *FLAGS, '-o', program, f'{SOURCE}/examples/{name}.c',
         *pkg_config('--cflags', '--libs'))
    return program


def test_everything_is_installed():
    for name in ['llmkit.h', 'llmkit.pc', 'libllmkit.so', 'libllmkit.so.0']:
        tap.check(find(name).startswith(ROOT + PREFIX), name)
    if shutil.which('scdoc'):
        for page in ['llmkit.3', 'llmkit_open.3', 'llmkit_submit.3', 'llmkit_acquire.3',
                     'llmkit_route.3']:
            find(page)


def test_the_installed_header_stands_alone():
    header = find('llmkit.h')
    good('cc', '-std=c11', *FLAGS, '-fsyntax-only', '-x', 'c', header)
    if shutil.which('c++'):
        good('c++', '-std=c++11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', '-x', 'c++', header)


def test_pkg_config_knows_it():
    tap.equal(good('pkg-config', '--modversion', find('llmkit.pc')).strip(), '0.1.0')
    tap.check('-lllmkit' in pkg_config('--libs'))
    tap.check('-lyyjson' not in pkg_config('--libs'), 'users do not link the library\'s libraries')


def test_examples_build_and_run_against_it():
    environment = dict(library_path(), LLMKIT_SOCKET=ROOT + '/none.sock')
    for name in ['chat', 'workers']:
        program = build(name)
        used = good('ldd', program, env=environment)
        tap.check('not found' not in used, used)
        tap.check(ROOT in [line for line in used.splitlines() if 'libllmkit.so.0' in line][0], used)
        code, text = run(program, env=environment)
        tap.equal(code, 1, name)
        tap.check('nothing listens on the socket' in text, text)


def test_only_public_names_are_exported():
    exported = [line.split()[-1] for line in
                good('nm', '-D', '--defined-only', find('libllmkit.so.0')).splitlines()]
    tap.check('llmkit_open@@LLMKIT_0.1' in exported, exported)
    tap.equal([n for n in exported if not n.startswith('llmkit_') and n != 'LLMKIT_0.1'], [])


def test_the_readme_example_is_the_example():
    with open(f'{SOURCE}/examples/chat.c') as f:
        text = f.read()
    tap.check(text.count('\n') <= 25, text)
    if os.path.exists(f'{SOURCE}/README.md'):
        with open(f'{SOURCE}/README.md') as f:
            shown = f.read()
        # Indented there, as all code in it.
        tap.check(' '.join(text.split()) in ' '.join(shown.split()),
                  'README.md shows another text than examples/chat.c')


if __name__ == '__main__':
    try:
        tap.run(sys.modules['__main__'])
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)
