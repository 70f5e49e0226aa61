"""A program from the preloaded process does as one from the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

PROGRAMS = {
    "code": ["-c", "import sys; sys.exit(3)"],
    "words": ["-c", "raise SystemExit('no')"],
    "error": ["-c", "1 / 0"],
    "end": ["-c", "import atexit; atexit.register(print, 'end'); print(__name__)"],
    "killed": ["-c", "import os; os.kill(os.getpid(), 9)"],
    "file": ["named.py", "a", "b"],
    "module": ["-m", "named", "a", "b"],
    "option": ["-W", "error", "-c", "import sys; print(sys.warnoptions)"],
}


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_ends_and_prints_as_the_interpreters_does(python, tmp_path, words):
    (tmp_path / "named.py").write_text(
        "import os, sys\nprint(__name__, sys.argv[1:], sys.stdin.read(), os.environ['GIVEN'])\n"
    )

    def told(program: object) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(program), *words],
            input="typed",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"GIVEN": "x"},
        )
        return done.returncode, done.stdout, (done.stderr.splitlines() or [""])[-1]

    assert told(python) == told(sys.executable)


def test_a_program_ends_when_who_started_it_is_killed(python):
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([python, "-c", code], stdin=pipe, stdout=pipe) as caller:
        pid = int(caller.stdout.readline())
        caller.kill()
        caller.wait()
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}"):
            assert time.monotonic() < deadline
