import html.parser
import json
import os
import pathlib
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest

from imagenet_jax import report
from imagenet_jax.errors import UserError
from imagenet_jax.report import __main__ as command

VOID = {"meta", "img", "source", "br", "input", "link", "circle"}


class Page(html.parser.HTMLParser):
    """Collects text, pictures, links, identifiers and scripts of a page, and checks that elements are nested properly."""

    def __init__(self, path):
        super().__init__()
        self.open, self.texts, self.images, self.ids, self.anchors, self.scripts = [], [], {}, [], [], 0
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "img":
            self.images[found["src"]] = found["alt"]
        if tag == "source":
            self.images.setdefault(found["srcset"], "the dark one")
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.anchors.append(found["href"])
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def read_page(path):
    page = Page(path)
    assert len(page.ids) == len(set(page.ids))
    assert {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    for source, alt in page.images.items():
        assert not urllib.parse.urlsplit(source).scheme
        assert (path.parent / urllib.parse.unquote(source)).is_file(), source
        assert alt
    return page


def test_the_page_shows_results_names_and_pictures(make_run):
    work = make_run()
    path = report.write_report([work])
    assert path == work / "report.html"
    page = read_page(path)
    for expected in (
        "resnet20 on digits 1.0.0", "10 classes", "85.37 %", "86.42 %", "98.76 %", "0.4321", "0.3987", "56.25 %",
        "272 k parameters", "6 min 41 s", "three five 1 50.0 %", "seven one 2 100.0 %", "3 of 20 images were taken",
        "1 of these 2 are right", "✓ right", "✗ wrong", "photo 0.png", "optimizer.learning_rate 0.1", "0123abcd",
        "opencv 5.0.0", "a1b2c3", "jax 0.10.2", "image_size 32", "averaged weights, which have the higher top-1",
    ):  # fmt: skip
        assert expected in page.text, expected
    stems = {"loss", "top1", "learning-rate", "throughput"}
    pictures = {f"report/{stem}-{scheme}.png" for stem in stems for scheme in ("light", "dark")}
    thumbnails = {f"eval/digits-validation/0000000{k}.jpg" for k in range(2)}
    assert set(page.images) == pictures | thumbnails
    assert "training from 2 to 0.5" in page.images["report/loss-light.png"]


def test_twice_the_same_run_gives_the_same_bytes(make_run):
    work = make_run()
    first = report.write_report([work]).read_bytes()
    (work / "report" / "confusion-light.png").write_bytes(b"left by an earlier report")
    assert report.write_report([work]).read_bytes() == first
    assert not (work / "report" / "confusion-light.png").exists()
    assert not list(work.glob("*.new"))


def test_names_from_outside_are_text(make_run):
    names = ["<script>alert(1)</script>", *"abcdefgh", '"><img src=x onerror=alert(1)>']
    work = make_run(names=names, note="</dd><script>alert(2)</script>")
    content = json.loads((work / "eval" / "digits-validation.json").read_text())
    content["samples"][0]["file_name"] = '"><script>alert(3)</script>\udc80'
    (work / "eval" / "digits-validation.json").write_text(json.dumps(content))
    page = read_page(report.write_report([work]))
    assert page.scripts == 1
    assert "x" not in page.images
    assert page.text.count("<script>alert(1)</script>") >= 3
    assert "<script>alert(2)</script>" in page.text
    assert "<script>alert(3)</script>" in page.text


def test_a_long_class_name_is_cut_at_the_matrix_and_whole_in_its_title(make_run):
    """Uncut, it pushed the matrix off the page: column heads stand upright."""
    name = "a name that goes on and on, with a Latin one behind it"
    page = report.write_report([make_run(names=[name, *"abcdefghi"])]).read_text()
    assert page.count(f'<span title="{name}">{name}</span></th>') == 2
    assert ".matrix th span { display: block; max-inline-size: 11rem; overflow: hidden; text-overflow: ellipsis;" in page


def test_a_thousand_classes(make_run):
    names = [f"class number {i}" for i in range(1000)]
    page = read_page(report.write_report([make_run(names=names)]))
    assert "report/confusion-light.png" in page.images
    assert "report/top5-dark.png" in page.images
    assert "class number 7 taken for class number 1 2 times" in page.images["report/confusion-light.png"]
    assert "class number 999" in page.text
    assert "1,000 classes" in page.text
    assert "class number 7 class number 1 2 100.0 %" in page.text


def test_several_runs_are_compared_in_the_first_ones_directory(make_run):
    first, second = make_run("first", seed=1), make_run("second", ema=False, seed=2, width=8)
    path = report.write_report([first, second])
    assert path.parent == first
    assert not (second / "report.html").exists()
    page = read_page(path)
    assert "2 runs compared" in page.text
    assert "Top-1, raw weights 85.37 % 85.37 %" in page.text
    assert "Top-1, averaged weights 86.42 % –" in page.text  # noqa: RUF001
    assert "seed 1 2" in page.text
    assert "width – 8" in page.text  # noqa: RUF001
    assert "Circumstances that differ none" in page.text
    assert "not evaluated on the same images" not in page.text
    assert {"report/train-loss-light.png", "report/eval-loss-light.png"} <= set(page.images)
    assert "second from 2 to 0.5" in page.images["report/train-loss-light.png"]


def test_runs_on_other_images_carry_a_warning(make_run):
    first, second = make_run("first"), make_run("second")
    info = json.loads((second / "config.json").read_text())
    info["dataset"]["fingerprint"]["eval"] = "other"
    (second / "config.json").write_text(json.dumps(info))
    assert "not evaluated on the same images" in read_page(report.write_report([first, second])).text


def test_a_run_that_began_from_weights_says_so(make_run):
    work = make_run(init_from="weights/<i>")
    assert "Began from" not in read_page(report.write_report([work])).text
    info = json.loads((work / "config.json").read_text())
    info["init"] = {"sha256": "0a1b", "head": "new"}
    (work / "config.json").write_text(json.dumps(info))
    assert "Began from weights/<i>, head new, sha256 0a1b" in read_page(report.write_report([work])).text


def test_what_was_not_encoded_anew_has_no_row(make_run):
    run = make_run()
    assert "Encoded anew" not in read_page(report.write_report([run])).text
    info = json.loads((run / "config.json").read_text())
    info["dataset"]["encoding"] = {"short_side": 256, "quality": None}
    (run / "config.json").write_text(json.dumps(info))
    assert "Encoded anew short_side 256" in read_page(report.write_report([run])).text


def test_a_run_that_has_only_started(make_run):
    work = make_run()
    for file in (work / "metrics.jsonl", work / "eval" / "digits-validation.json"):
        file.unlink()
    page = read_page(report.write_report([work]))
    assert "at step 0 of 400" in page.text
    assert page.images == {}
    for sentence in (
        "This run has not been evaluated yet", "Nothing to draw", "There is no confusion matrix: the run has not",
        "There are no results by class", "There are no sample predictions: the run has not", "optimizer.name sgd",
    ):  # fmt: skip
        assert sentence in page.text, sentence


def test_missing_parts_of_an_evaluation(make_run):
    work = make_run(ema=False)
    (work / "eval" / "digits-validation.npz").unlink()
    (work / "eval" / "digits-validation" / "00000000.jpg").unlink()
    page = read_page(report.write_report([work]))
    assert "no readable .npz file" in page.text
    assert "thumbnail not found" in page.text
    assert "there are no averaged weights" in page.text
    assert "Top-1, averaged" not in page.text


def test_unknown_numbers_do_not_stop_the_page(make_run):
    work = make_run()
    info = json.loads((work / "config.json").read_text())
    info["model"]["flops_per_image"] = info["git_commit"] = None
    (work / "config.json").write_text(json.dumps(info))
    content = json.loads((work / "eval" / "digits-validation.json").read_text())
    content["raw"] |= {"top5": None, "loss": float("nan"), "macro": dict.fromkeys(("classes", "precision", "recall", "f1"))}
    content["ema"], content["samples"] = None, []
    (work / "eval" / "digits-validation.json").write_text(json.dumps(content))
    page = read_page(report.write_report([work]))
    assert "precision –, recall –, F1 –" in page.text  # noqa: RUF001
    assert "the evaluation kept none" in page.text


def test_a_perfect_model_has_no_confused_pairs(make_run):
    work = make_run()
    np.savez(work / "eval" / "digits-validation.npz", confusion_ema=2 * np.eye(10, dtype=np.int64))
    page = read_page(report.write_report([work]))
    assert "0 of 20 images were taken" in page.text
    assert "Most confused pairs" not in page.text


def test_an_unreadable_line_is_said_on_the_page(make_run):
    work = make_run()
    with (work / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    assert "Its last line is cut short" in read_page(report.write_report([work])).text


def test_command_prints_the_path(make_run, capsys):
    work = make_run()
    assert not command.main([str(work)])
    assert capsys.readouterr().out.strip() == str(work / "report.html")


def test_a_place_that_cannot_be_written_is_the_users_mistake(make_run):
    work = make_run()
    (work / "report").write_text("a file where the folder belongs")
    with pytest.raises(UserError, match="cannot be written"):
        report.write_report([work])


@pytest.mark.parametrize(("arguments", "words"), [(["."], "config.json"), ([], "WORKDIR"), (["absent"], "no such directory")])
def test_mistakes_end_in_exit_code_2_and_a_message(tmp_path, arguments, words):
    root = str(pathlib.Path(report.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    run = [sys.executable, "-m", "imagenet_jax.report", *arguments]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_never_imports_jax(make_run):
    code = "import sys, pathlib, imagenet_jax.report as r; r.write_report([pathlib.Path(sys.argv[1])]); print('jax' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(report.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(make_run())], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
