"""Encoded images and tars, made on the spot, and the small data set `pets` in the formats that tfds writes."""

import io
import json
import pathlib
import shutil
import tarfile

import cv2
import numpy as np
import pytest
from PIL import Image

from imagenet_jax.data.preparing.prepare import prepare_folder


@pytest.fixture(scope="session")
def make_image():
    """encoded(format, mode, size, seed, **save options) -> bytes of a noisy image."""

    def encoded(format="JPEG", mode="RGB", size=(24, 16), seed=0, **options):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture(scope="session")
def make_tar():
    """tar(path or None, {name: bytes or TarInfo}) -> bytes, written to the path where there is one."""

    def tar(path, members):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in members.items():
                if isinstance(content, tarfile.TarInfo):
                    content.name = name
                    archive.addfile(content)
                else:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
        return buffer.getvalue()

    return tar


@pytest.fixture(scope="session")
def prepare(tmp_path_factory, make_image):
    """prepare(data_dir, name, images, seed): a data set of two classes, cat and dog, in train and validation."""

    def write(data_dir, name="pets", images=10, seed=0, **kind):
        tree = tmp_path_factory.mktemp("tree")
        for split, count in (("train", images), ("validation", 3)):
            for label in ("cat", "dog"):
                (tree / split / label).mkdir(parents=True)
                for i in range(count):
                    data = make_image(**{"format": "PNG", **kind}, seed=1000 * seed + i + 100 * (label == "dog"))
                    (tree / split / label / f"{i}.png").write_bytes(data)
        prepare_folder(name=name, data_dir=data_dir, train=tree / "train", validation=tree / "validation", jobs=1)
        return tree

    return write


@pytest.fixture(scope="session")
def pets(prepare, tmp_path_factory):
    """(data directory with the data set 'pets', the tree that it was made from); read only."""
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, prepare(data_dir)


@pytest.fixture
def copied(pets, tmp_path):
    """A copy of the data directory that a test may change."""
    return pathlib.Path(shutil.copytree(pets[0], tmp_path / "data"))


@pytest.fixture(scope="session")
def pets_tfrecord(pets, tmp_path_factory):
    """A data directory with the same examples as TFRecords: train in 3 shards of 7, 6 and 7, validation in one; read only."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorboardX.record_writer import RecordWriter  # a writer, and a CRC32C, that are not ours

    data_dir = tmp_path_factory.mktemp("tfrecord")
    directory = pathlib.Path(shutil.copytree(pets[0] / "pets", data_dir / "pets")) / "1.0.0"
    info = json.loads((directory / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        (old,) = directory.glob(f"*-{split['name']}.array_record*")
        records = ArrayRecordDataSource([str(old)])
        counts = [7, 6, 7] if split["name"] == "train" else [6]
        split["shardLengths"] = list(map(str, counts))
        at = 0
        for shard, count in enumerate(counts):
            writer = RecordWriter(str(directory / f"pets-{split['name']}.tfrecord-{shard:05d}-of-{len(counts):05d}"))
            for i in range(at, at + count):
                writer.write(records[i])
            writer.close()
            at += count
        old.unlink()
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return data_dir


def picture(height, width, seed):
    """Smooth colours, one sharp edge and some noise: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(seed)
    channels = [128 + 90 * np.sin(x / 9 + y / 17), 60 + x * 120 / width + y * 70 / height, 128 + 90 * np.cos(y / 11)]
    image = np.stack(channels, -1) + random.normal(0, 6, (height, width, 3))
    image[height // 3 : height // 2, width // 4 :] = random.integers(0, 256, 3)
    return image.clip(0, 255).astype(np.uint8)


def by_pillow(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def jpeg():
    """jpeg(kind, height, width or pixels, seed, quality, **options of Pillow's writer, but for 4:4:0 and 4:1:1) -> bytes."""

    def make(kind, height=0, width=0, *, pixels=None, seed=0, quality=90, **options):
        pixels = picture(height, width, seed) if pixels is None else pixels
        if kind in ("4:4:0", "4:1:1"):  # only OpenCV writes them
            factor = {"4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411}[kind]
            flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY, quality]
            return cv2.imencode(".jpg", pixels[..., ::-1], flags)[1].tobytes()
        image = Image.fromarray(pixels)
        if kind == "grey":
            return by_pillow(image.convert("L"), quality=quality, **options)
        if kind in ("cmyk", "cmyk 4:2:0", "ycck"):
            data = by_pillow(image.convert("CMYK"), quality=quality, subsampling=2 if "4:2:0" in kind else 0, **options)
            # Pillow writes no YCCK; the same numbers under that name are a picture too, of other colours.
            return data.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2") if kind == "ycck" else data
        if kind == "rgb":
            return by_pillow(image, quality=quality, keep_rgb=True, **options)
        return by_pillow(image, quality=quality, subsampling=kind, **options)

    return make


@pytest.fixture(scope="session")
def photos(shared_data):
    """The 100 validation images of the sample, encoded."""
    with tarfile.open(shared_data / "ilsvrc_sample" / "ILSVRC2012_img_val.tar") as tar:
        return [tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()]
