"""Which row stands for us in a comparison, and what is said where there is none."""

import pytest

from imagenet_jax.bench.compare import COMPARISONS, compare
from imagenet_jax.bench.input import MARKED, MEASURED, NOTHING, ORIGINAL, PEERS, plan

RATES = {"opencv": 100.0, "pillow": 50.0, None: 80.0}


def measured(given=(ORIGINAL, MARKED), cores=(1, 2), peers=tuple(PEERS)):
    """Results in which opencv is twice as fast as pillow, markers 1.5 times as fast as none, and two cores as one."""
    results = []
    for row in plan(given, ["opencv", "pillow"], cores, peers, "opencv"):
        median = RATES[row.engine] * (1.5 if row.data == MARKED else 1.0) * row.cores
        quality = {"shrinking_n": 5, "shrinking_median": 99.0 if row.engine == "pillow" else 44.0}
        results.append(
            row._asdict()
            | {"label": row.label, "pixels": row.pixels, "status": MEASURED, "rates": [median] * 3, "median": median}
            | {"quality": quality if row.pixels else None}
        )
    return results


def by_name(results):
    return {row["comparison"]: row for row in compare(results, "opencv")}


def test_the_fastest_engine_and_way_stands_for_us():
    found = by_name(measured())
    assert found["files as they are, not antialiased / tf.data"]["ratio"] == 100 / 80
    assert found["restart markers, not antialiased / tf.data"]["ratio"] == 150 / 80
    best = found["antialiased / Pillow processes"]
    assert best["ratio"] == 150 / 80
    assert best["ours"] == "ours, restart markers, opencv, antialiased"
    assert found["two cores / one core"]["ratio"] == 2


def test_an_antialiased_row_must_be_close_to_pillow():
    results = measured()
    for row in results:
        if row["engine"] == "opencv" and row["quality"]:
            row["quality"]["shrinking_median"] = 42.9
    found = by_name(results)
    assert found["antialiased / Pillow processes"]["ours"] == "ours, restart markers, pillow, antialiased"
    assert found["same decode function / grain"]["ratio"] == 1  # both sides decode alike: nothing is claimed of the quality
    for row in results:
        if row["quality"]:
            row["quality"]["shrinking_median"] = 42.9
    assert by_name(results)["antialiased / DALI"]["status"] == "no engine of ours reaches 43 dB"


def test_what_is_missing_is_named():
    results = measured(given=(ORIGINAL,), cores=(1,))
    for row in results:
        if row["contestant"] == "tf.data":
            row |= {"status": "not installed (No module named 'tensorflow')"}
    found = by_name(results)
    assert len(found) == len(COMPARISONS)
    assert (
        found["files as they are, not antialiased / tf.data"]["status"] == "tf.data: not installed (No module named 'tensorflow')"
    )
    assert found["restart markers, not antialiased / tf.data"]["status"] == "data set not given"
    assert found["two cores / one core"]["status"] == "ours on 2 core(s): not run"
    assert found["antialiased / DALI"]["status"] == MEASURED
    without = by_name(measured(peers=()))
    assert without["nothing decoded / grain"]["status"] == "grain, nothing decoded on 1 core(s): not run"


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_every_side_is_a_row_that_exists(comparison):
    for side in (comparison.ours, comparison.theirs):
        assert side.contestant in {"ours", NOTHING, *PEERS}
        if side.contestant in PEERS and side.antialias is not None:
            assert side.antialias == PEERS[side.contestant].antialias
