"""Our `.safetensors` against the reference implementation, and against headers that lie."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from imagenet_jax.pretrained import safetensors


def arrays():
    rng = np.random.default_rng(0)
    made = {name: rng.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in safetensors.DTYPES.items()}
    return made | {
        "scalar": np.float32(3).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "strided": made["F32"].T,
        "ü.ß": made["I8"],
    }


def same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(got[name], array)


def test_what_was_written_is_read(tmp_path):
    safetensors.write(tmp_path / "x.safetensors", arrays())
    same(safetensors.read(tmp_path / "x.safetensors"), arrays())
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_reference_reads_ours_and_we_read_the_reference(torch, safetensors_torch, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.write(path, arrays())
    read = safetensors_torch.load_file(path)
    got = {name: t.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if name == "BF16" else t.numpy() for name, t in read.items()}
    same(got, arrays())
    safetensors_torch.save_file(read, path, metadata={"some": "thing"})
    same(safetensors.read(path), arrays())


def test_a_dtype_that_the_format_lacks(tmp_path):
    with pytest.raises(ValueError, match="tensor 'x' has dtype complex64"):
        safetensors.write(tmp_path / "x", {"x": np.zeros(3, np.complex64)})
    assert not list(tmp_path.iterdir())


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]}}


def file(tmp_path, header, length=None, data=bytes(16)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def test_the_good_header_is_read(tmp_path):
    assert list(safetensors.read(file(tmp_path, GOOD))) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3]}, "does not fit its bytes"),
        ({"shape": [2**62, 4]}, "does not fit its bytes"),
        ({"shape": [-2]}, "is not {dtype, shape, data_offsets}"),
        ({"shape": [2.0]}, "is not {dtype, shape, data_offsets}"),
        ({"shape": 2}, "is not {dtype, shape, data_offsets}"),
        ({"dtype": "F8_E4M3"}, "has dtype 'F8_E4M3'; known"),
        ({"data_offsets": [4, 12]}, "does not fit its bytes"),
        ({"data_offsets": [8, 0]}, "does not fit its bytes"),
        ({"data_offsets": [0, 2**63]}, "does not fit its bytes"),
        ({"more": 1}, "is not {dtype, shape, data_offsets}"),
    ],
)
def test_an_entry_that_lies_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        safetensors.read(file(tmp_path, GOOD | {"a": GOOD["a"] | change}))


@pytest.mark.parametrize(
    ("header", "length", "data", "message"),
    [
        (GOOD, 2**63, bytes(16), "its header claims"),
        (GOOD, 10_000, bytes(16), "its header claims"),
        (GOOD, None, bytes(15), "does not fit its bytes"),
        (GOOD, None, bytes(17), "1 bytes after its last tensor"),
        ({"a": GOOD["a"], "b": GOOD["a"]}, None, bytes(8), "does not fit its bytes"),
        (b'{"a": 1, "a": 2}', None, b"", "names 'a' twice"),
        (b"[" * 100_000, None, b"", "nested too deeply"),
        (b"[]", None, b"", "no JSON object"),
        (b"{", None, b"", "Expecting"),
        (b"\xff\xfe{}", None, b"", r"."),
    ],
)
def test_a_file_that_lies_is_refused(header, length, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        safetensors.read(file(tmp_path, header, length, data))


def test_short_files(tmp_path):
    for end in (0, 3, 8):
        (tmp_path / "x").write_bytes(bytes([9] * end))
        with pytest.raises(ValueError, match="its header claims"):
            safetensors.read(tmp_path / "x")
