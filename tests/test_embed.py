"""Embedding, and searching in what it wrote: every picture once, in order, in parts or not, and only by the model that made it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from imagenet_jax import embed, embedder, search
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import weights
from imagenet_jax.retrieval import store


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """23 pictures of noise, one of which is none."""
    rng = np.random.default_rng(1)
    place = tmp_path_factory.mktemp("photos")
    (place / "deeper").mkdir()
    for i in range(22):
        pixels = rng.integers(0, 256, (40 + i, 50, 3)) * rng.uniform(0, 1, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(place / ("deeper" if i % 2 else "") / f"{i:02d}.png")
    (place / "10a.png").write_bytes(b"no picture")
    return place


@pytest.fixture(scope="module")
def index(small_weights, photos, tmp_path_factory):
    """Of them, in one go."""
    out = tmp_path_factory.mktemp("index")
    assert embed.main([f"--weights={small_weights}", f"--folder={photos}", f"--out={out}"]) == 3
    return out


def test_every_picture_once_in_order_with_unit_vectors(index, photos, capsys):
    found = store.Index(index)
    names = [d["name"] for d in found.describe(range(len(found)))]
    assert names == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png") if p.name != "10a.png")
    ((_, vectors),) = found.blocks()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    ((_, predictions),) = found.predictions()
    assert predictions.classes.shape == (22, 20)
    assert (np.diff(predictions.probabilities) <= 0).all()


def test_parts_of_two_machines_are_what_one_writes_and_a_killed_run_goes_on(
    index, small_weights, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(store, "SHARD", 5)
    flags = [f"--weights={small_weights}", f"--folder={photos}", f"--out={tmp_path}", "--batch_size=8"]
    embed.main([*flags, "--part=2/2"])
    with pytest.raises(UserError, match="3 of 5 shards are missing, the first is number 0"):
        store.Index(tmp_path)
    embed.main([*flags, "--part=1/2"])
    again, one = store.Index(tmp_path), store.Index(index)
    assert again.counts == [5, 4, 5, 5, 3]
    np.testing.assert_allclose(again.vectors(range(22)), one.vectors(range(22)), atol=1e-5)
    assert [d["name"] for d in again.describe(range(22))] == [d["name"] for d in one.describe(range(22))]
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    (tmp_path / "images-00002-of-00005.parquet").unlink()  # as a kill between the two files leaves it
    assert embed.main(flags) == 3  # what an earlier run could not read is still not there
    changed = {p.name for p in tmp_path.iterdir() if p.stat().st_mtime_ns != before[p.name]}
    assert changed == {"images-00002-of-00005.parquet", "vectors-00002-of-00005.npy"}


def test_a_data_set_keeps_its_labels(small_weights, tiny_data, tmp_path, capsys):
    flags = [f"--weights={small_weights}", "--dataset=tiny", "--split=validation", f"--data_dir={tiny_data}", f"--out={tmp_path}"]
    assert embed.main(flags) == 0
    found = store.Index(tmp_path)
    source = embed.open_data(found.manifest["data"])
    assert found.labels().tolist() == [source.read(i).label for i in range(21)]
    assert found.describe([0])[0]["label"] == source.classes[found.labels()[0]]


def test_a_query_is_seen_as_the_pictures_of_the_index_were(index, photos, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert search.main([str(index), f"--image={photos / '04.png'}", "-k", "3", f"--json={out}"]) == 0
    results = json.loads(out.read_text())["results"]
    assert [len(results), results[0]["similarity"]] == [3, pytest.approx(1, abs=1e-5)]
    assert results[0]["name"] in capsys.readouterr().out.splitlines()[0]
    found = store.Index(index)
    query = embedder.for_queries(found).one((photos / "04.png").read_bytes())
    row = next(d["row"] for d in found.describe(range(22)) if d["name"] == "04.png")
    np.testing.assert_allclose(query.vector, found.vectors([row])[0], atol=1e-6)
    np.testing.assert_allclose(query.predictions.probabilities[0], next(found.predictions())[1].probabilities[row], atol=1e-6)
    search.main([str(index), f"--item={row}", "-k", "3", f"--json={out}"])
    assert {r["row"] for r in json.loads(out.read_text())["results"]} == {r["row"] for r in results}


def test_a_word_ranks_by_probability_and_its_senses_are_printed(index, capsys, tmp_path):
    out = tmp_path / "found.json"
    search.main([str(index), "--word=entities", f"--json={out}"])
    assert "1000 classes" in capsys.readouterr().out.splitlines()[0]
    found = json.loads(out.read_text())
    scores = [r["probability"] for r in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1
    ((_, predictions),) = store.Index(index).predictions()
    assert [r["probability"] for r in found["results"]] == pytest.approx(
        [predictions.probabilities[r["row"]].sum() for r in found["results"]]
    )


def test_both_keep_what_is_of_the_kind(make_index, random_unit, tmp_path):
    vectors = random_unit(np.random.default_rng(0), 40, 8)
    index = make_index(tmp_path, vectors)  # row i is class i with 0.6, i + 1 with 0.3
    result = search.search(index, 5, vector=vectors[7], classes=[10, 11])
    assert result.measure == "similarity"
    assert set(result.rows.tolist()) == {10, 11}  # row 9 is one of them with 0.3
    assert (np.diff(result.scores) <= 0).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--word=tromboni"], "Did you mean 'trombone'"),
        (["--word=crane", "--sense=dog"], "none of the senses of 'crane': n02012849"),
        ([], "Give --image=FILE, --item=N or --word=WORD"),
        (["--item=22"], "has 0 .. 21"),
        (["--image=gone.jpg"], "gone.jpg cannot be read: No such file or directory"),
        (["--image=."], "it is no regular file"),
        (["--item=1", "--word=crane", "--image=x"], "not both"),
        (["--word=dog", "--json=gone/x.json"], "its folder does not exist"),
        (["--word=dog", "-k", "0"], "must be at least 1"),
        (["--item=1", "--approximate"], "has no approximate index"),
    ],
)
def test_mistakes_of_searching(index, flags, message):
    with pytest.raises(UserError, match=message):
        search.main([str(index), *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part=3/2"], "must be like 3/8"),
        (["--dataset=tiny"], "either --dataset=NAME or --folder=DIR"),
        (["--workdir=x"], "either --workdir=RUN or --weights=DIR"),
        (["--batch_size=0"], "must be at least 1"),
    ],
)
def test_mistakes_of_embedding(small_weights, photos, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        embed.main([f"--weights={small_weights}", f"--folder={photos}", f"--out={tmp_path}", *flags])


def test_other_weights_and_other_pictures_are_refused(index, small_weights, photos, tmp_path):
    found = weights.load(small_weights)
    changed = {**found.variables["params"], "fc": {k: v * 2 for k, v in found.variables["params"]["fc"].items()}}
    weights.save(tmp_path / "w", found._replace(variables={**found.variables, "params": changed}))
    with pytest.raises(UserError, match=r"differ in weights: \w+ here, \w+ there"):
        search.main([str(index), f"--image={photos / '04.png'}", f"--weights={tmp_path / 'w'}"])
    weights.save(tmp_path / "p", found._replace(preprocessing=found.preprocessing._replace(crop_ratio=0.5)))
    with pytest.raises(UserError, match="differ in preprocessing"):
        search.main([str(index), f"--image={photos / '04.png'}", f"--weights={tmp_path / 'p'}"])
    with pytest.raises(UserError, match="an index of something else: weights differ"):
        embed.main([f"--weights={tmp_path / 'w'}", f"--folder={photos}", f"--out={index}"])
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "00.png").unlink()
    with pytest.raises(UserError, match="an index of something else: data"):
        embed.main([f"--weights={small_weights}", f"--folder={tmp_path / 'photos'}", f"--out={index}"])
