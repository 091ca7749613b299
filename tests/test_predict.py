"""The predict command on small files: readable names, files out, and what is broken."""

import csv
import json
import os
import re

import jax
import numpy as np
import pytest
from PIL import Image

from imagenet_jax import infer, predict, sharding
from imagenet_jax.data.augmentation.augment import central
from imagenet_jax.data.labels import hierarchy
from imagenet_jax.data.labels.classes import readable, wnids
from imagenet_jax.data.pixels import decode
from imagenet_jax.errors import UserError


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(1)
    place = tmp_path / "photos"
    (place / "deeper").mkdir(parents=True)
    for i in range(20):
        pixels = rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / ("deeper" if i % 2 else "") / f"{i:02d}.{'png' if i % 3 else 'JPEG'}")
    (place / "notes.txt").write_text("no image")
    return place


def test_files_say_what_the_model_says_one_image_at_a_time(small_weights, photos, tmp_path, capsys):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "png")}
    flags = [
        f"--weights={small_weights}",
        f"--json={out['json']}",
        f"--csv={out['csv']}",
        f"--sheet={out['png']}",
        "--top=3",
        "--batch_size=8",
    ]
    assert predict.main([*flags, str(photos)]) == 0
    results = json.loads(out["json"].read_text())
    assert [r["path"] for r in results] == sorted(str(p) for p in photos.rglob("*") if p.suffix in (".png", ".JPEG"))
    loaded = infer.load(small_weights, sharding.make_mesh(jax.devices()[:1]))
    run = jax.jit(lambda x: jax.nn.softmax(loaded.model.apply(loaded.weights["raw"], (x / 255 - 0.5) / 0.25)))
    for result in results[::5]:
        image = np.zeros((1, 32, 32, 3), np.uint8)
        with open(result["path"], "rb") as file:
            decode.render(file.read(), lambda h, w: central(h, w, 32, 0.875), loaded.pixels.engine, True, image[0])
        probabilities = np.asarray(run(image.astype(np.float32)))[0]
        best = np.argsort(-probabilities, kind="stable")[:3]
        assert [t["index"] for t in result["top"]] == best.tolist()
        assert [t["probability"] for t in result["top"]] == pytest.approx(probabilities[best].tolist(), rel=1e-3)
        assert [(t["wnid"], t["name"]) for t in result["top"]] == [(wnids()[i], readable(wnids())[i]) for i in best]
    rows = list(csv.reader(out["csv"].read_text().splitlines()))
    assert rows[0] == ["path", "rank", "index", "wnid", "name", "probability", "wordnet_path"]
    assert len(rows) == 1 + 60
    tree = hierarchy.imagenet1k()
    assert rows[4][6].split(" > ") == [tree.words(w) for w in tree.path(results[1]["top"][0]["wnid"])[:-1]]
    assert rows[4][:5] == [results[1]["path"], "1", *(str(results[1]["top"][0][k]) for k in ("index", "wnid", "name"))]
    with Image.open(out["png"]) as sheet:
        assert sheet.size == (8 * 136 + 8, 3 * 166 + 8)
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_broken_files_are_named_and_the_rest_go_on(small_weights, photos, tmp_path, capsys):
    (photos / "a.jpg").write_bytes(b"")
    (photos / "b\x1b[31m.jpg").write_bytes(b"no image")
    os.mkfifo(photos / "c.jpg")
    assert predict.main([f"--weights={small_weights}", f"--json={tmp_path / 'x.json'}", str(photos)]) == 3
    shown = capsys.readouterr()
    assert "a.jpg: it is empty" in shown.err
    assert "b\\x1b[31m.jpg" in shown.err
    assert "c.jpg: it is no regular file" in shown.err
    assert "3 of 23 files could not be read." in shown.err
    assert "\x1b[31m" not in shown.out + shown.err
    assert len(json.loads((tmp_path / "x.json").read_text())) == 20


def test_one_photo_shows_all_its_names(small_weights, photos, capsys):
    assert predict.main([f"--weights={small_weights}", str(photos / "00.JPEG")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("00.JPEG")
    assert len(lines) == 6
    assert all(re.fullmatch(r" *[\d.]+%  .*[^ ]  \(entity > .*[^ ]\)", line) for line in lines[1:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["gone.jpg"], "neither a file nor a folder"),
        (["."], "No image in '.'"),
        (["--top=0", "x.png"], "must be at least 1"),
        (["--json=gone/x.json", "x.png"], "its folder does not exist"),
    ],
)
def test_mistakes(small_weights, flags, message, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match=message):
        predict.main([f"--weights={small_weights}", *flags])


def test_names_on_the_sheet_may_be_anything(tmp_path):
    from imagenet_jax.report import sheet

    picture = np.zeros((32, 32, 3), np.uint8)
    sheet.write_sheet(tmp_path / "x.png", [picture] * 2, [("a" * 1000, "\udcff\n"), ("", "狐")])
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (2 * 136 + 8, 166 + 8)
