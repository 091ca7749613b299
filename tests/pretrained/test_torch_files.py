"""What torch.save writes, in both of its formats, comes back bit for bit without torch; damage and deceit are refused."""

import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from imagenet_jax.pretrained import torch_files

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(params=FORMATS)
def save(request, torch, tmp_path):
    def save(content, **settings):
        path = tmp_path / f"{request.param}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=FORMATS[request.param], **settings)
        return path

    return save


def tensors(torch):
    kinds = [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    base = torch.arange(24).reshape(2, 3, 4)
    made = {str(kind): base.to(kind) for kind in kinds}
    shared = torch.randn(10, 6)
    return made | {
        "bool": base % 2 == 0,
        "bfloat16": torch.randn(5, 7).to(torch.bfloat16),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "transposed": shared.T,
        "slice": shared[2:7:2, 1:4],
        "same": shared,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }


def bits(array):
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


@pytest.mark.parametrize("protocol", [2, 4])
def test_every_dtype_and_view_comes_back(save, torch, protocol):
    saved = tensors(torch)
    got = torch_files.read(save(saved, pickle_protocol=protocol))
    assert list(got) == list(saved)
    for name, tensor in saved.items():
        tensor = tensor.detach()
        wanted = tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
        np.testing.assert_array_equal(bits(got[name]), wanted, err_msg=name)
        assert got[name].dtype.name == str(tensor.dtype).removeprefix("torch.")


def test_state_dicts_with_their_metadata_alone_or_inside_a_checkpoint(save, torch):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = module.state_dict()
    assert state._metadata
    for content in (state, {"model": state, "epoch": 3, "best": 0.5, "groups": [{"params": [0, 1]}]}):
        got = torch_files.read(save(content))
        assert {k: v.shape for k, v in got.items()} == {k: tuple(v.shape) for k, v in state.items()}
    with pytest.raises(ValueError, match=r"entries with tensors are 'ema', 'model': choose with --entry=NAME"):
        torch_files.read(save({"model": state, "ema": state}))
    ema = {"0.weight": torch.ones(2)}
    assert list(torch_files.read(save({"model": state, "ema": ema}), "ema")) == ["0.weight"]


def test_what_is_no_tensor_is_refused_by_name(save, torch):
    with pytest.raises(ValueError, match=r"asks for 'torch\._utils\._rebuild_sparse_tensor'"):
        torch_files.read(save({"w": torch.eye(2).to_sparse()}))
    with pytest.raises(ValueError, match=r"asks for 'torch\.nn\.modules\.linear\.Linear'"):
        torch_files.read(save(torch.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="its 'step' is a int, no tensor"):
        torch_files.read(save({"w": torch.ones(3), "step": 4}))
    with pytest.raises(ValueError, match="entries with tensors are none"):
        torch_files.read(save([1, 2]))


def test_a_malicious_checkpoint_is_refused_and_its_file_is_not_created(save, torch, tmp_path):
    class Malicious:
        def __reduce__(self):
            return open, (str(tmp_path / "created"), "w")

    with pytest.raises(ValueError, match=r"asks for '_?io\.open'"):
        torch_files.read(save({"w": torch.ones(3), "evil": Malicious()}))
    assert not (tmp_path / "created").exists()


def test_files_cut_anywhere_are_value_errors(save, torch):
    path = save({"w": torch.arange(300.0), "b": torch.ones(3)})
    data = path.read_bytes()
    for end in range(0, len(data), 37):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"."):
            torch_files.read(path)


def test_a_flipped_bit_in_a_zip_is_found(torch, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.full((1000,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.full(100, 7.0, "f4").tobytes()) + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="CRC"):
        torch_files.read(path)


class _Tensor:
    """Pickles as torch does a tensor of a storage "0" of float32, with these numbers."""

    def __init__(self, count=4, offset=0, shape=(4,), strides=(1,)):
        self.numbers = count, offset, shape, strides


def hostile_zip(path, tensors, parts=None, compression=zipfile.ZIP_STORED):
    """A zip as torch.save's, written by hand so that its numbers can lie; `tensors`: name -> _Tensor."""
    head = b"\x80\x02}("
    for name, tensor in tensors.items():
        count, offset, shape, strides = tensor.numbers
        identity = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
        numbers = number(offset) + tuple_of(shape) + tuple_of(strides) + b"\x89}"
        head += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + numbers + b"tR"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"data.pkl": head + b"u.", "data/0": bytes(16), **(parts or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    data = value.to_bytes(10, "little", signed=True)
    return b"\x8a\x0a" + data


def tuple_of(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def test_the_zip_written_by_hand_is_read(tmp_path):
    (array,) = torch_files.read(hostile_zip(tmp_path / "x.pth", {"w": _Tensor()})).values()
    np.testing.assert_array_equal(array, np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_Tensor(shape=(5,)), "does not lie within its storage"),
        (_Tensor(offset=1), "does not lie within its storage"),
        (_Tensor(strides=(2,)), "does not lie within its storage"),
        (_Tensor(shape=(2**60,), strides=(0,)), "does not lie within its storage"),
        (_Tensor(offset=-1), "a shape or strides that are none"),
        (_Tensor(shape=(-4,)), "a shape or strides that are none"),
        (_Tensor(shape=(1,) * 40, strides=(0,) * 40), "a shape or strides that are none"),
        (_Tensor(count=2**40), "claim more bytes than the file has"),
        (_Tensor(count=5), "its 16 bytes are not what it should have"),
        (_Tensor(count=-1), "a persistent id that is no storage"),
    ],
)
def test_numbers_that_lie_are_refused(tensor, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        torch_files.read(hostile_zip(tmp_path / "x.pth", {"w": tensor}))


def test_compressed_missing_and_foreign_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'data\.pkl' is compressed"):
        torch_files.read(hostile_zip(tmp_path / "x.pth", {"w": _Tensor()}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="big-endian"):
        torch_files.read(hostile_zip(tmp_path / "x.pth", {"w": _Tensor()}, {"byteorder": b"big"}))
    path = hostile_zip(tmp_path / "x.pth", {"w": _Tensor()})
    path.write_bytes(path.read_bytes().replace(b"archive/data/0", b"archive/data/1"))
    with pytest.raises(ValueError, match="is missing"):
        torch_files.read(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"it has no ARCHIVE/data\.pkl"):
        torch_files.read(tmp_path / "other.zip")


def test_a_pickle_that_is_not_torchs_is_said_to_be_none(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"".join(pickle.dumps(x, 2) for x in (1, 2, {}, {}, [])))
    with pytest.raises(ValueError, match=r"not of torch\.save"):
        torch_files.read(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 a photograph", b"{}"])
def test_another_file_is_said_to_be_another(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"it is neither \.safetensors nor of torch\.save"):
        torch_files.read(tmp_path / "x.pth")


def test_reading_needs_no_torch(torch, tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "w.pth")
    code = """if True:
        import pathlib, sys
        sys.modules["torch"] = None
        from imagenet_jax.pretrained import torch_files
        print(torch_files.read(pathlib.Path(sys.argv[1]))["w"].sum())"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "w.pth"], capture_output=True, text=True, check=True)
    assert done.stdout == "3.0\n"
