"""Who takes part in a run, and the roll call: how many were expected, and how many came."""

import argparse
import socket
import threading

import pytest

from imagenet_jax import processes
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.processes import Place


@pytest.fixture
def port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def flags(*argv):
    parser = argparse.ArgumentParser()
    processes.add_flags(parser)
    return parser.parse_args(argv)


def gather(places, timeout):
    """Call all of `places` at once; what each of them raised, or None."""
    ends = [None] * len(places)

    def call(i):
        try:
            processes.roll_call(places[i], timeout)
        except (RunError, UserError) as error:
            ends[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_all_come_and_the_port_is_free_again(port):
    for _ in range(2):
        assert gather([Place(f"localhost:{port}", 3, i) for i in (2, 0, 1)], 20) == [None] * 3


def test_who_is_missing_is_named(port):
    first, second = gather([Place(f"localhost:{port}", 4, i) for i in (0, 2)], 1)
    assert isinstance(first, RunError)
    assert "4 processes were expected and 2 seen within 1 s" in str(first)
    assert "Missing: 1, 3" in str(first)
    assert isinstance(second, RunError)


def test_a_process_that_finds_no_process_0_says_where_it_looked(port):
    with pytest.raises(RunError, match=rf"Process 1 of 2: process 0 was not reached at localhost:{port} after 0.5 s"):
        processes.roll_call(Place(f"localhost:{port}", 2, 1), 0.5)


@pytest.mark.parametrize(("others", "said"), [([(3, 1), (3, 1)], "number 1 of 3"), ([(4, 1)], "number 1 of 4")])
def test_processes_that_do_not_fit_are_refused(port, others, said):
    """The same number twice; another number of processes."""
    first, *_ = gather([Place(f"localhost:{port}", *who) for who in ((3, 0), *others)], 3)
    assert isinstance(first, UserError)
    assert f"{said}; process 0 expects 3" in str(first)


def test_a_stranger_on_the_port_does_no_harm(port):
    place = Place(f"localhost:{port}", 2, 0)
    ends = []
    listening = threading.Thread(target=lambda: ends.append(processes.roll_call(place, 20)))
    listening.start()
    while True:
        try:
            with socket.create_connection(("localhost", port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            break
        except OSError:
            pass
    processes.roll_call(place._replace(process=1), 20)
    listening.join()
    assert ends == [None]


def test_flags_go_together():
    assert processes.given(flags()) is None
    whole = ["--coordinator=host:1234", "--num_processes=2", "--process_id=1"]
    assert processes.given(flags(*whole)) == Place("host:1234", 2, 1)
    assert processes.given(flags(*whole[1:]), {"JAX_COORDINATOR_ADDRESS": "other:5"}) == Place("other:5", 2, 1)
    assert processes.given(flags("--coordinator=host:1234", "--num_processes=1", "--process_id=0")) is None
    for missing, message in ((whole[:2], "go together"), ([*whole[:2], "--process_id=2"], "numbered 0 .. 1")):
        with pytest.raises(UserError, match=message):
            processes.given(flags(*missing))
    with pytest.raises(UserError, match="must be HOST:PORT"):
        processes.given(flags("--coordinator=host", *whole[1:]))


SLURM = {"SLURM_JOB_ID": "4099", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, None),
        ({**SLURM, "SLURM_STEP_NODELIST": "node[003-007,9],other"}, Place("node003:61443", 8, 3)),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu-a1,gpu-b2"}, Place("gpu-a1:61443", 8, 3)),
        (SLURM, None),  # in the batch script itself, before srun: one process
        ({**SLURM, "SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, None),
        ({**MPI, "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}, Place("10.96.0.1:8482", 4, 2)),
        ({**MPI, "JAX_COORDINATOR_ADDRESS": "head:99"}, Place("head:99", 4, 2)),
        ({"TPU_WORKER_HOSTNAMES": "t-0.svc,t-1.svc", "TPU_WORKER_ID": "1"}, Place("t-0.svc:8482", 2, 1)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
    ],
)
def test_what_launchers_say(env, place):
    assert processes.launched(env) == place


def test_open_mpi_without_an_address_asks_for_one():
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        processes.launched(MPI)
