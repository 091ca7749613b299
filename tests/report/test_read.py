import json

import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.report import read


def test_reads_every_record(make_run):
    run = read.read_run(make_run(), "digits")
    assert run.train["step"].tolist() == [100, 200, 300, 400]
    assert run.evals["ema"]["loss"].tolist() == pytest.approx([1, 0.5, 1 / 3, 0.25])
    assert run.evaluations[0].confusion["raw"][7, 1] == 2
    assert run.notes == []


def test_truncated_last_line_is_left_out_and_said(make_run):
    work = make_run()
    file = work / "metrics.jsonl"
    file.write_text(file.read_text()[:-20])
    run = read.read_run(work, "digits")
    assert len(run.evals["ema"]["step"]) == 3
    assert run.notes == ["metrics.jsonl: Its last line is cut short and left out."]


def test_unreadable_lines_in_the_middle_are_named(make_run):
    work = make_run()
    lines = (work / "metrics.jsonl").read_text().splitlines()
    lines[1], lines[3] = "{", '{"kind": "train", "step": 200}'
    (work / "metrics.jsonl").write_text("\n".join(lines))
    run = read.read_run(work, "digits")
    assert "Lines 2, 4" in run.notes[0]
    assert run.train["step"].tolist() == [100, 300, 400]


def test_null_is_nan_and_records_of_unknown_kind_are_passed_over(make_run):
    work = make_run()
    record = json.loads((work / "metrics.jsonl").read_text().splitlines()[0]) | {"loss": None}
    (work / "metrics.jsonl").write_text(json.dumps(record) + '\n{"kind": "note"}\n')
    run = read.read_run(work, "digits")
    assert np.isnan(run.train["loss"]).tolist() == [True]
    assert run.notes == []


def test_a_directory_that_is_no_run_is_named_with_what_a_run_holds(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"config\.json, metrics\.jsonl") as error:
            read.read_runs([path])
        assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["{", '{"format": 1}', "[]"])
def test_a_broken_config_is_an_error_that_names_it(make_run, text):
    work = make_run()
    (work / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read.read_runs([work])


def test_a_later_format_is_refused(make_run):
    work = make_run()
    info = json.loads((work / "config.json").read_text())
    (work / "config.json").write_text(json.dumps(info | {"format": 2}))
    with pytest.raises(UserError, match="format 2"):
        read.read_runs([work])


def test_broken_evaluations_and_matrices_are_left_out_with_a_note(make_run):
    work = make_run()
    (work / "eval" / "other-test.json").write_text('{"dataset": "other"}')
    np.savez(work / "eval" / "digits-validation.npz", confusion_raw=np.eye(3, dtype=np.int64))
    run = read.read_run(work, "digits")
    assert [e.path.name for e in run.evaluations] == ["digits-validation.json"]
    assert run.evaluations[0].confusion == {}
    assert sorted(note.split()[0] for note in run.notes) == ["eval/digits-validation.npz", "eval/other-test.json"]
    (work / "eval" / "digits-validation.npz").write_bytes(b"no zip file")
    assert read.read_run(work, "digits").evaluations[0].confusion == {}


def test_a_run_given_twice_is_read_once_and_equal_names_are_told_apart(make_run):
    a, b = make_run("one/same"), make_run("two/same")
    assert [run.name for run in read.read_runs([a, a])] == ["same"]
    assert [run.name for run in read.read_runs([a, b])] == [str(a), str(b)]
