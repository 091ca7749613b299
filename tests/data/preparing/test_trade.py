import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

import imagenet_jax.data.pixels.jpeg
from imagenet_jax.data.pixels.jpeg import header as headers
from imagenet_jax.data.preparing import trade
from imagenet_jax.data.preparing.builders.folder import data_set
from imagenet_jax.data.preparing.judge import judge
from imagenet_jax.data.preparing.trade import SAMPLE, measure
from imagenet_jax.data.storage.encoding import Encoding
from imagenet_jax.data.storage.entries import Entries


@pytest.fixture
def entries(tmp_path, make_image):
    """300 small JPEGs, of which the last and the one in the middle are no images."""
    entries = Entries()
    for i in range(300):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(b"no" if i in (150, 299) else make_image(size=(80, 60), seed=i, quality=98, subsampling=0))
        entries.add(path.name, "cat", str(path), 0, path.stat().st_size)
    return entries


def traded(entries, encoding):
    return measure(entries, data_set("pets", ["cat"], encoding))


@pytest.fixture
def bytes_for_seconds(monkeypatch):
    """Decoding takes as many seconds as there are bytes to decode."""
    decoded = []
    monkeypatch.setattr(trade, "_decode", lambda data: decoded.append(len(data)))

    def seconds(function, *arguments):
        decoded.clear()
        function(*arguments)
        return sum(decoded)

    monkeypatch.setattr(trade, "_seconds", seconds)


def test_a_smaller_image_takes_less_space_and_time(entries, bytes_for_seconds):
    found = traded(entries, Encoding(short_side=16, quality=90))
    assert SAMPLE - 2 <= found.images <= SAMPLE
    assert found.size < 0.2
    assert found.speed == found.crops == pytest.approx(1 / found.size)


def test_crops_are_cut_at_the_markers(entries, bytes_for_seconds, monkeypatch):
    def add_markers(data):
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            image.save(buffer, "JPEG", quality=98, subsampling=0, restart_marker_blocks=2)
        return buffer.getvalue()

    stub = types.SimpleNamespace(add_markers=add_markers)
    monkeypatch.setitem(sys.modules, "imagenet_jax.data.pixels.jpeg.restart", stub)
    monkeypatch.setattr(imagenet_jax.data.pixels.jpeg, "restart", stub, raising=False)
    found = traded(entries, Encoding(restart_markers=True))
    assert 0.9 < found.speed < 1.1
    assert found.crops > 1.2 * found.speed
    assert found.psnr is None


def test_it_is_really_timed(entries):
    found = traded(entries, Encoding(short_side=16, quality=90))
    assert 0 < found.speed < 1000
    assert 0 < found.crops < 1000


def test_pixels_lose_with_the_quality_and_not_with_the_size(entries):
    """PSNR is to the original shrunk alike: chroma of noise suffers from 4:2:0, which costs grey images nothing."""
    good, bad = (traded(entries, Encoding(short_side=32, quality=quality)).psnr for quality in (95, 30))
    assert 15 < bad < good < 60


def test_it_is_the_size_of_what_is_stored(entries):
    encoding = Encoding(max_side=40, quality=50)
    found = traded(entries, encoding)
    picked = [int(i) for i in np.linspace(0, 299, SAMPLE) if int(i) not in (150, 299)]
    before = sum(entries[i].size for i in picked)
    after = sum(len(judge(entries[i].read(), only_jpeg=False, encoding=encoding).data) for i in picked)
    assert found.size == pytest.approx(after / before)


def test_nothing_that_can_be_stored(tmp_path):
    entries = Entries()
    entries.add("gone.jpg", "cat", str(tmp_path / "gone.jpg"), 0, 10)
    assert traded(entries, Encoding(max_side=40, quality=50)) is None


def test_what_decoders_take_and_we_do_not_parse_is_measured_all_the_same(tmp_path, make_image):
    data = make_image()
    odd = data[:20] + b"\0\0\0" + data[20:]  # libjpeg passes over bytes between two headers
    entries = Entries()
    for name, content in (("odd.jpg", odd), ("a.png", make_image("PNG"))):
        (tmp_path / name).write_bytes(content)
        entries.add(name, "cat", str(tmp_path / name), 0, len(content))
    with pytest.raises(ValueError, match="no marker"):
        headers.read(odd)
    assert traded(entries, Encoding(max_side=1000, quality=90)).images == 2
    assert trade._decode_crop(odd, 0) is None
