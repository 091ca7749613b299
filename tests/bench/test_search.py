"""What search costs, on few vectors: the numbers are there and make sense."""

import json

from imagenet_jax.bench import __main__ as bench


def test_search_is_measured(tmp_path, capsys):
    flags = ["search", "--rows=2000", "--dimension=16", "--queries=4", "-k=5", "--rounds=2", f"--out={tmp_path}"]
    assert bench.main(flags) == 0
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["exact"]["n"] == 2
    assert 0 < found["exact"]["min"] <= found["exact"]["median"] <= found["exact"]["max"]
    assert 0 <= found["recall_at_10"] <= 1
    assert 1e6 < found["resident_before"] <= found["resident_exact"] <= found["resident_build"]
    assert "2,000 synthetic vectors of 16 numbers, top 5 of 4 queries" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["search.json"]  # the vectors are gone
