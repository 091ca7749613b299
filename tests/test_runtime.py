"""The lock of a workdir and the watchdog."""

import errno
import json
import os
import subprocess
import sys

import pytest

from imagenet_jax import runtime
from imagenet_jax.errors import UserError


def test_a_workdir_is_held_once_and_let_go(tmp_path):
    with runtime.locked(tmp_path / "run"):
        with pytest.raises(UserError, match=f"run is in use by process {os.getpid()} on "), runtime.locked(tmp_path / "run"):
            pass
        assert json.loads((tmp_path / "run" / ".lock").read_text())["process"] == os.getpid()  # the refused one changed nothing
    assert list((tmp_path / "run").iterdir()) == []
    with runtime.locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("left", ['{"process": 1, "host": "elsewhere"}', "{", '{"process": "1; rm", "host": 3}'])
def test_what_a_dead_process_left_is_taken_over(tmp_path, capsys, left):
    """Whether its number is in use again, by process 1 say, or it was another host's: flock's word counts, not the file's."""
    (tmp_path / ".lock").write_text(left)
    with runtime.locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert "which died. Its lock is taken over." in capsys.readouterr().out


def test_a_file_system_without_locks_is_used_without_and_that_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(runtime.fcntl, "flock", none)
    with runtime.locked(tmp_path):
        pass
    assert "without locks: see that no other run uses it" in capsys.readouterr().err


def watched(hang: str) -> str:
    """What a process says on both streams that beats for two seconds and then does not, for 2.5 s, within which it does `hang`."""
    code = f"""
import ctypes, threading, time
from imagenet_jax import runtime
def hang(seconds): {hang}
with runtime.Watchdog(1.0) as dog:
    for _ in range(8):
        dog.beat(); time.sleep(0.25)
    print("quiet so far", flush=True)
    thread = threading.Thread(target=hang, args=(2.5,)); thread.start(); thread.join()
"""
    command = [sys.executable, "-u", "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
    before, after = done.stdout.split("quiet so far")
    assert before == ""
    return after


def test_the_watchdog_shows_where_each_thread_hangs_and_only_then():
    said = watched("time.sleep(seconds)")
    assert "Nothing was finished for 1 s" in said
    assert "in hang" in said
    assert "in join" in said


def test_the_watchdog_speaks_where_one_thread_keeps_all_others_from_running():
    """A call into C that holds Python's lock."""
    said = watched("ctypes.PyDLL(None).usleep(int(seconds * 1e6))")
    assert said.index("Timeout (0:00:01)!") >= 0
    assert "in hang" in said
