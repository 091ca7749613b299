"""Hostile pickles are refused with their name, nothing is executed, and neither memory nor the stack is at their mercy."""

import builtins
import collections
import io
import os
import pickle
import tracemalloc

import pytest

from imagenet_jax.pretrained import pickles


def load(data: bytes, known=None):
    return pickles.load(io.BytesIO(data), known or {}, lambda identity: ("storage", identity))


class Reduces:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PLAIN = {"a": [1, -2, 2**40, 1.5, None, True], "b": ("x", (), ("y", "z"), {3: {}}), "c": list(range(300)), "ü": "\ud800"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_containers_come_back_equal(protocol):
    assert load(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_shared_and_cyclic_containers_stay_shared():
    loop: list = [1]
    loop.append(loop)
    (one, same) = load(pickle.dumps((loop, loop), 2))
    assert one is same is one[1]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", [os.system, open, builtins.exec, builtins.getattr])
def test_a_reduce_that_would_create_a_file_is_refused_with_its_name(function, protocol, tmp_path):
    path = tmp_path / "created"
    arguments = {os.system: f"touch {path}", open: str(path), builtins.exec: f"open({str(path)!r}, 'w')"}
    data = pickle.dumps({"weight": Reduces(function, arguments.get(function, "x"), *["w"] * (function is open))}, protocol)
    with pytest.raises(ValueError, match=rf"refused: it asks for '\w+.{function.__name__}'"):
        load(data)
    assert not path.exists()


def test_what_is_known_is_called_and_nothing_else():
    data = pickle.dumps(collections.OrderedDict(a=1), 2)
    assert load(data, {"collections.OrderedDict": dict}) == {"a": 1}
    with pytest.raises(ValueError, match=r"asks for 'collections\.OrderedDict'"):
        load(data)
    # A function that is reached as an attribute of a known name, and a string that is called.
    with pytest.raises(ValueError, match=r"asks for 'collections\.OrderedDict\.fromkeys'"):
        load(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.", {"collections.OrderedDict": dict})
    with pytest.raises(ValueError, match="it calls a str"):
        load(b"\x80\x02X\x04\x00\x00\x00evil)R.")


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "INST": b"(ios\nsystem\n.",
        "OBJ": b"(X\x01\x00\x00\x00ao.",
        "NEWOBJ": b"))\x81.",
        "EXT1": b"\x82\x01.",
        "LONG4": b"\x8b\x01\x00\x00\x00\x05.",
        "BYTEARRAY8": b"\x96\x01" + bytes(7) + b"a.",
        "FROZENSET": b"(K\x01\x91.",
        "PERSID": b"Px\n.",
    }.items(),
)
def test_other_opcodes_are_refused_with_their_name(name, data):
    with pytest.raises(ValueError, match=f"opcode {name}"):
        load(data)


def test_depth_does_not_reach_the_stack():
    """A million tuples in each other: hashing one would end the process."""
    deep = b"\x80\x02)" + b"\x85" * 1_000_000
    assert isinstance(load(deep + b"."), tuple)
    with pytest.raises(ValueError, match="refused: a tuple as a key"):
        load(b"\x80\x02}" + deep[2:] + b"Ns.")


CLAIMS = {
    "a memo of four billion entries": b"\x80\x02]r\xff\xff\xff\xff",
    "a string of two billion characters": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a string of 2^63 characters": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.",
    "a frame of 2^63 bytes": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f]",
    "an array of 2^63 bytes": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fabc.",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_lengths_that_are_claimed_allocate_nothing(claim):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            load(CLAIMS[claim])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data", [b"", b".", b"\x80\x02", b"\x80\x02h\x07.", b"t.", b"]K\x01K\x02s.", b"\x80\x02}K\x01a.", b"\xff.", b"\x93."]
)
def test_damaged_pickles_are_value_errors(data):
    with pytest.raises(ValueError, match=r"."):
        load(data)


def test_every_cut_of_a_pickle_is_a_value_error():
    data = pickle.dumps(PLAIN, 2)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"."):
            load(data[:end])
