"""Exit codes and messages that all commands share, seen from outside."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from imagenet_jax import cli, main
from imagenet_jax.errors import UserError

COMMANDS = ("main", "prepare", "evaluate", "report", "models", "checkpoints")


def call(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise UserError('no such thing')", 2, "error: no such thing\n"),
        ("raise RunError('disk full')", 1, "error: disk full\n"),
        (
            "raise OSError(28, 'No space left on device', 'a.json')",
            1,
            "error: No space left on device: a.json. Make room, and run it again.\n",
        ),
        (
            "open('x' * 300)",
            2,
            f"error: File name too long: {'x' * 300}. Name another path, or ask for access to it.\n",
        ),
        ("raise KeyboardInterrupt", 130, "Interrupted.\n"),
    ],
)
def test_exit_codes(body, code, message):
    done = call(
        f"from imagenet_jax import cli\nfrom imagenet_jax.errors import *\ndef command(argv):\n    {body}\ncli.run(command)"
    )
    assert (done.returncode, done.stderr) == (code, message)


def test_a_fault_of_ours_keeps_its_traceback():
    done = call("from imagenet_jax import cli\ncli.run(lambda argv: 1 / 0)")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_home_directory_is_found_behind_a_flag(monkeypatch):
    """Of `--out=~/x`, bash leaves the ~ as it is, and a folder of that name helps nobody."""
    monkeypatch.setenv("HOME", "/home/me")
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=cli.path)
    assert parser.parse_args(["--out=~/x"]).out == pathlib.Path("/home/me/x")
    assert cli.path("a/~") == pathlib.Path("a/~")


def test_a_file_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.new_file("x.json") == pathlib.Path("x.json")
    with pytest.raises(UserError, match="its folder does not exist"):
        cli.new_file("gone/x.json")
    with pytest.raises(UserError, match="it is a folder"):
        cli.new_file(str(tmp_path))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", f"imagenet_jax.{command}", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert f"usage: python -m imagenet_jax.{command}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs=3"], "Unknown arguments: --epochs=3. Keys of the config are set as in --config.epochs=3."),
        (["--config.epochs", "3"], "Unknown arguments: 3. Keys of the config are set as in --config.KEY=VALUE."),
        (["--workdir="], "--workdir is empty"),
    ],
)
def test_flags_of_a_training_that_are_none(flags, message):
    with pytest.raises(UserError, match=message):
        main.main(["--config=quickstart", "--workdir=x", *flags])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_the_users_mistake(command):
    done = subprocess.run(
        [sys.executable, "-m", f"imagenet_jax.{command}", "--wrkdir=x"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
