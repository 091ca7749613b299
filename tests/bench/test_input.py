"""`bench input`: the order of the rounds, and all of it on small images."""

import json

import pytest
from PIL import Image

from imagenet_jax.bench import __main__ as command
from imagenet_jax.bench import input as bench
from imagenet_jax.bench.contestants import Absent, Failed
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError

SETTINGS = bench.Settings(16, 4, 3, 0.01, 4)


def test_rows_of_the_plan():
    rows = bench.plan([bench.ORIGINAL, bench.SMALL], ["a", "b"], [1, 2], list(bench.PEERS), "b")
    assert len(rows) == len(set(rows)) == 2 * (2 * 2 * 2 + 1 + len(bench.PEERS))
    assert {row.engine for row in rows if row.contestant == "grain, our decode"} == {"b"}
    assert {row.data for row in rows if row.contestant != "ours"} == {bench.ORIGINAL}
    assert not any(row.pixels for row in rows if "nothing" in row.contestant)


def test_rounds_are_interleaved_and_a_failure_ends_only_its_own_row(monkeypatch, jpegs, tmp_path):
    asked = []

    class Fake:
        version = "1"

        def __init__(self, module, task, log):
            if module == "peers.dali":
                raise Absent("No module named 'nvidia'")
            self.name = f"{module}-{task.engine}"

        def ask(self, question, **settings):
            asked.append((self.name, question))
            if self.name == "peers.tf_data-None" and asked.count((self.name, "turn")) == 2:
                raise Failed("its process ended with code -11")
            return float(len(asked))

        def close(self):
            asked.append((self.name, "close"))

    monkeypatch.setattr(bench, "Contestant", Fake)
    data = {bench.ORIGINAL: bench.load(open_source(jpegs, "jpegs", "train"), 1000)}
    rows = [
        bench.Row("ours", bench.ORIGINAL, "opencv", True, 1),
        bench.Row("tf.data", bench.ORIGINAL, None, False, 1),
        bench.Row("DALI", bench.ORIGINAL, None, True, 1),
        bench.Row("ours", bench.ORIGINAL, "pillow", True, 1),
    ]
    results = bench.measure(data, rows, SETTINGS, tmp_path / "log")
    a, b, c = "ours-opencv", "peers.tf_data-None", "ours-pillow"
    assert [name for name, question in asked if question == "turn"] == [a, b, c, a, b, c, a, c]
    assert sorted(name for name, question in asked if question == "close") == sorted([a, b, c])
    assert [r["status"] for r in results] == [
        "measured",
        "failed (its process ended with code -11)",
        "not installed (No module named 'nvidia')",
        "measured",
    ]
    assert results[0]["n"] == 3
    assert results[0]["median"] == results[0]["rates"][1]
    assert "median" not in results[1]


def test_variants_must_hold_the_same_images(jpegs):
    source = open_source(jpegs, "jpegs", "train")
    data = {bench.ORIGINAL: bench.load(source, 9), bench.MARKED: bench.load(open_source(jpegs, "jpegs", "validation"), 9)}
    assert len(data[bench.ORIGINAL].memory) == 9
    with pytest.raises(UserError, match="does not hold the same images"):
        bench.check_same(data)
    bench.check_same(data | {bench.MARKED: bench.load(source, 9)})


def test_two_rounds_from_the_command_line(jpegs, tmp_path, monkeypatch, capsys):
    peers = {"OpenCV": bench.PEERS["OpenCV"], "Pillow processes": bench.PEERS["Pillow processes"]}
    monkeypatch.setattr(bench, "PEERS", peers | {"gone": bench.Peer("peers.no_such_peer", True)})
    flags = "--dataset=jpegs --marked=jpegs --peers --engines=opencv --cores=1 --rounds=2 --seconds=0.05 --size=16 --batch_size=4"
    argv = ["input", *flags.split(), "--crops=8", f"--data_dir={jpegs}", f"--out={tmp_path / 'out'}"]
    assert command.main(argv) == 0

    def refuse(text):
        raise ValueError(f"{text} is no JSON")

    report = json.loads((tmp_path / "out" / "input.json").read_text(), parse_constant=refuse)
    assert [row["label"] for row in report["rows"]] == [
        "ours, files as they are, opencv", "ours, files as they are, opencv", "ours, restart markers, opencv",
        "ours, restart markers, opencv", bench.NOTHING, "OpenCV", "Pillow processes", "gone",
    ]  # fmt: skip
    for row in report["rows"][:-1]:
        assert row["status"] == bench.MEASURED
        assert len(row["rates"]) == row["n"] == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["quality"] is None if row["contestant"] == bench.NOTHING else row["quality"]["n"] == 8
    assert report["rows"][6]["quality"]["p5"] == 99
    assert report["rows"][-1]["status"].startswith("not installed")
    assert report["data"]["original"]["images"] == 24
    assert report["rows"][0]["engine_version"] == report["versions"]["engine opencv"]
    assert report["split"][0]["microseconds"]["crop"] > 0
    compared = {row["comparison"]: row for row in report["comparisons"]}
    assert compared["files as they are, not antialiased / OpenCV"]["ratio"] > 0
    assert compared["small files with markers, not antialiased / tf.data"]["status"] == "data set not given"
    out = capsys.readouterr().out
    assert "gone" in out
    assert "not installed (No module named" in out
    with Image.open(tmp_path / "out" / "input.png") as picture:
        assert picture.width == 1680


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--engines=opencvv", "Did you mean 'opencv'"), ("--cores=100000", "this process may use"), ("--dataset=nope", "nope")],
)
def test_mistakes_are_named(jpegs, tmp_path, flag, message):
    with pytest.raises(UserError, match=message):
        command.main(["input", "--dataset=jpegs", f"--data_dir={jpegs}", f"--out={tmp_path}", flag])


@pytest.mark.parametrize("flags", [["input", "--rounds=0"], ["input", "--cores=1,x"], ["feed"], ["feed", "--rate=0"], ["other"]])
def test_flags_out_of_range_are_refused(flags):
    with pytest.raises(SystemExit) as caught:
        command.main(flags)
    assert caught.value.code == 2
