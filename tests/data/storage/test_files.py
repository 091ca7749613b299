import concurrent.futures
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from imagenet_jax.data.storage.files import Files


@pytest.fixture
def files(tmp_path):
    for i in range(5):
        (tmp_path / str(i)).write_bytes(np.random.default_rng(i).bytes(1000))
    return Files([str(tmp_path / str(i)) for i in range(5)])


def content(files, i):
    with open(files.paths[i], "rb") as file:
        return file.read()


def test_ranges_from_many_threads(files):
    def read(seed):
        random = np.random.default_rng(seed)
        for _ in range(200):
            i, offset, size = map(int, random.integers((0, 0, 0), (5, 500, 500)))
            assert files.read(i, offset, size) == content(files, i)[offset : offset + size]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(files._open) == 5  # each is open once


def test_the_kernel_may_give_less_than_asked_for(files, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 7), offset))
    assert files.read(0, 100, 500) == content(files, 0)[100:600]
    with pytest.raises(ValueError, match=r"/0 ends before byte 1,001"):
        files.read(0, 990, 11)


def test_a_closed_file_opens_again_and_none_stays_open_after_use(files):
    files.read(0, 0, 1)
    descriptor = files._open[0]
    files.close(0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert files.read(0, 0, 10) == content(files, 0)[:10]
    descriptor = files._open[0]
    copy = pickle.loads(pickle.dumps(files))
    assert copy._open == {}
    assert copy.read(0, 0, 10) == files.read(0, 0, 10)
    files.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def limited(limits):
    program = (
        "import resource; from imagenet_jax.data.storage.files import Files; Files(['x'] * 1024); print(*resource.getrlimit(7))"
    )
    program = program.replace("7", "resource.RLIMIT_NOFILE")
    command = f'{limits} && exec {sys.executable} -c "{program}"'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes():
    done = limited("ulimit -Sn 256 && ulimit -Hn 1500")
    assert done.stdout.split() == ["1500", "1500"], done.stderr


def test_a_limit_too_low_for_the_data_set_says_so():
    done = limited("ulimit -Sn 256 && ulimit -Hn 1200")
    assert "UserError: The data set has 1,024 files; this process may open 1,200. Raise it: ulimit -n 1280" in done.stderr
