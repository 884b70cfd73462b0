"""The smallest test runner that meson can read: functions named test_* of a module, as TAP."""
import sys
import time
import traceback


class Skip(Exception):
    pass


def check(condition, message='check failed'):
    if not condition:
        raise AssertionError(message)


def equal(got, wanted, what=''):
    check(got == wanted, f'{what}: got {got!r}, wanted {wanted!r}')


def wait_for(condition, seconds=20, what='condition'):
    """Polls until condition() is true; a bound against hanging, not an assertion on timing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'{what} did not come true within {seconds} s')


def run(module, only=None):
    tests = [(n, f) for n, f in vars(module).items() if n.startswith('test_') and callable(f)]
    if only:
        tests = [(n, f) for n, f in tests if any(o in n for o in only)]
    print(f'1..{len(tests)}', flush=True)
    bad = 0
    for number, (name, function) in enumerate(tests, 1):
        try:
            function()
            print(f'ok {number} - {name}', flush=True)
        except Skip as why:
            print(f'ok {number} - {name} # SKIP {why}', flush=True)
        except BaseException:  # also KeyboardInterrupt: the test failed
            bad += 1
            for line in traceback.format_exc().splitlines():
                print('#', line)
            print(f'not ok {number} - {name}', flush=True)
    sys.exit(1 if bad else 0)


def main():
    run(sys.modules['__main__'], sys.argv[1:])
