"""Encoded images and tars, made on the spot."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image


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
