"""What is done with whole indexes: neighbours that vote, duplicates, approximate search, and rows that others can ingest."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from imagenet_jax import index as command
from imagenet_jax.errors import UserError
from imagenet_jax.metrics import probes
from imagenet_jax.retrieval import approximate, duplicates, exact, knn
from imagenet_jax.retrieval.store import Index


def clustered(random_unit, rng, n, d=32, centres=25):
    """Vectors around a few centres, as features are."""
    x = random_unit(rng, centres, d)[rng.integers(0, centres, n)] + 0.12 * rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_knn_votes_are_those_of_the_probe(make_index, random_unit, tmp_path, capsys):
    rng = np.random.default_rng(0)
    vectors, queries = clustered(random_unit, rng, 300), clustered(random_unit, rng, 90)
    labels, truth = rng.integers(0, 7, 300), rng.integers(0, 7, 90)
    train = make_index(tmp_path / "train", vectors, labels=labels)
    counted = make_index(tmp_path / "counted", queries, labels=truth)
    results = knn.evaluate(train, counted, (1, 20, 200))
    for k, result in results.items():
        wanted = probes.nearest(vectors, labels, queries, 1000, k=k)
        assert result["correct"] == int((wanted == truth).sum())
        assert result["top5"] >= result["top1"] == result["correct"] / 90
    flags = ["knn-eval", str(tmp_path / "train"), str(tmp_path / "counted"), f"--json={tmp_path / 'x.json'}"]
    assert command.main(flags) == 0
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["10", "20", "100", "200"]
    assert capsys.readouterr().out.count("top-1") == 4
    other = make_index(tmp_path / "other", queries, labels=truth, weights="v")
    with pytest.raises(UserError, match="weights: w here, v there"):
        knn.evaluate(train, other, (1,))
    with pytest.raises(UserError, match="pictures without a label"):
        knn.evaluate(train, make_index(tmp_path / "unknown", queries), (1,))


def test_duplicates_are_grouped_and_found_across(make_index, random_unit, tmp_path, capsys):
    rng = np.random.default_rng(0)
    vectors = random_unit(rng, 250, 64)
    vectors[[17, 240]] = vectors[3]
    vectors[101] = vectors[100]
    index = make_index(tmp_path / "a", vectors)
    assert duplicates.groups(index, 0.9) == [[3, 17, 240], [100, 101]]
    assert duplicates.groups(index, 0.9) == duplicates.groups(make_index(tmp_path / "b", vectors, shard=7), 0.9)
    fresh = random_unit(rng, 30, 64)
    fresh[5] = vectors[200]
    other = make_index(tmp_path / "c", fresh)
    assert [(a, b) for a, b, _ in duplicates.across(index, other, 0.9)] == [(5, 200)]
    command.main(["dedup", str(tmp_path / "a"), str(tmp_path / "c"), f"--json={tmp_path / 'x.json'}"])
    assert "1 of 30 pictures" in capsys.readouterr().out
    assert json.loads((tmp_path / "x.json").read_text())[0]["of_name"] == "200.jpg"
    command.main(["dedup", str(tmp_path / "a")])
    assert "2 groups of near duplicates, 5 of 250" in capsys.readouterr().out


def test_near_duplicates_chain(make_index, tmp_path):
    """A is like B, B like C: one group, though A and C are further apart."""
    angles = np.deg2rad([0, 20, 40, 90])
    index = make_index(tmp_path, np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    assert duplicates.groups(index, 0.9) == [[0, 1, 2]]


def test_approximate_finds_what_exact_does(make_index, random_unit, tmp_path, capsys):
    vectors = clustered(random_unit, np.random.default_rng(0), 4000)
    index = make_index(tmp_path, vectors, shard=1500)
    assert command.main(["build", str(tmp_path)]) == 0
    share = float(capsys.readouterr().out.split("exact search: ")[1].split()[0])
    assert 0.95 <= share <= 1
    found = approximate.Approximate(index)
    assert found.nearest(vectors[:50], 1).rows[:, 0].tolist() == exact.nearest(index.blocks(), vectors[:50], 1).rows[:, 0].tolist()
    approximate.build(index, probes=1)
    assert approximate.recall(index, approximate.Approximate(index))[0] < share  # so recall can fall
    make_index(tmp_path, vectors[:300], weights="v")
    with pytest.raises(UserError, match="of other vectors"):
        approximate.Approximate(Index(tmp_path))


def test_a_damaged_approximate_index_is_refused(make_index, random_unit, tmp_path):
    index = make_index(tmp_path, random_unit(np.random.default_rng(0), 300, 8))
    approximate.build(index)
    path = tmp_path / approximate.FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        approximate.Approximate(index)


def test_recall_leaves_the_query_itself_out():
    assert approximate.without_self(np.array([[7, 1, 2], [4, 9, 5]]), np.array([7, 5])) == [[1, 2], [4, 9]]
    assert approximate.without_self(np.array([[3, 1, 2]]), np.array([7])) == [[3, 1]]


@pytest.fixture
def exported(make_index, random_unit, tmp_path, capsys):
    """(index, form -> the file that `index export` wrote)."""
    index = make_index(tmp_path / "i", random_unit(np.random.default_rng(0), 250, 16), labels=np.arange(250))

    def write(form):
        out = tmp_path / f"rows.{form}"
        assert command.main(["export", str(tmp_path / "i"), f"--form={form}", f"--out={out}"]) == 0
        assert "250 rows" in capsys.readouterr().out
        return out

    return index, write


def test_a_vector_database_ingests_the_rows_and_finds_what_we_find(exported):
    """Qdrant, which runs in this process; the lines are its own points."""
    from qdrant_client import QdrantClient, models

    index, write = exported
    client = QdrantClient(":memory:")
    client.create_collection("pictures", models.VectorParams(size=16, distance=models.Distance.COSINE))
    points = [models.PointStruct(**json.loads(line)) for line in write("jsonl").read_text().splitlines()]
    client.upsert("pictures", points)
    queries = index.vectors([3, 77, 200])
    ours = exact.nearest(index.blocks(), queries, 10)
    for query, rows in zip(queries, ours.rows, strict=True):
        theirs = client.query_points("pictures", query=query.tolist(), limit=10).points
        assert [p.id for p in theirs] == rows.tolist()
        assert theirs[0].payload["name"] == f"{rows[0]}.jpg"
    birds = models.Filter(must=[models.FieldCondition(key="categories", match=models.MatchValue(value="bird"))])
    found = client.query_points("pictures", query=queries[0].tolist(), query_filter=birds, limit=250).points
    assert len(found) == 59  # row i is predicted to be class i, and all birds are among the first 250
    client.close()


def test_parquet_and_vespa_hold_the_same_rows(exported):
    index, write = exported
    table = pq.read_table(write("parquet"))
    assert np.array_equal(np.stack(table["vector"].to_pylist()).astype(np.float32), index.vectors(range(250)))
    assert table["label"][0].as_py() == "tench"
    assert {"entity", "dog", "sled dog"} <= set(table["categories"][249].as_py())
    lines = [json.loads(line) for line in write("vespa").read_text().splitlines()]
    assert lines[7]["put"] == "id:imagenet_jax:picture::7"
    assert lines[7]["fields"]["vector"]["values"] == pytest.approx(index.vectors([7])[0].tolist())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["dedup", "--threshold=0"], r"must be in \(0, 1\]"),
        (["export", "--out=gone/x"], "its folder does not exist"),
        (["build", "--probes=-3"], "must be at least 1"),
    ],
)
def test_mistakes(make_index, tmp_path, flags, message):
    make_index(tmp_path, np.eye(3, dtype=np.float32))
    with pytest.raises(UserError, match=message):
        command.main([*flags, str(tmp_path)])
