"""The tree of categories as nodes, and the worst classes with their pictures, on a small synthetic result."""

import json

import pytest

from imagenet_jax.report import categories, read, write_report


def category(wnid, parent, classes, images=4):
    return {
        "wnid": wnid, "name": f"name of {wnid}", "parent": parent, "classes": classes, "images": images,
        "precision": 0.5, "recall": 0.25, "f1": 1 / 3,
    }  # fmt: skip


ROWS = [
    category("root", None, 10),
    category("chain", "root", 10),
    category("small", "chain", 3, images=0),
    category("large", "chain", 6),
    category("inner", "large", 2),
]
SCORES = {
    "mistake_severity": 7.3612,
    "distance_at": {"1": 0.8461, "5": 6.5},
    "least_severity": {"top1": 0.8712, "mistake_severity": 7.0912},
    "semantic_top1": None,
    "categories": ROWS,
}
WORST = [
    {
        "index": 3, "images": 2, "f1": 0.5, "taken_for": [{"index": 5, "images": 1}],
        "examples": [{"thumbnail": "digits-validation/00000001.jpg", "file_name": "<b>.png", "taken_for": 5}],
    },
]  # fmt: skip


@pytest.fixture
def run(make_run):
    """A run whose evaluation has a hierarchy and a worst class."""
    work = make_run(ema=False)
    path = work / "eval" / "digits-validation.json"
    content = json.loads(path.read_text())
    content |= {"hierarchy": {"wnids": ["n"] * 10, "raw": SCORES}, "worst": {"raw": WORST}}
    path.write_text(json.dumps(content))
    return work


def evaluation(run):
    return read.read_run(run, "x").evaluations[0]


def test_categories_of_the_same_classes_are_one_node_with_their_names(run):
    tree = categories.tree(evaluation(run), "raw")
    (root,) = tree["roots"]
    assert root["names"] == ["name of root", "name of chain"]
    assert [child["wnid"] for child in root["children"]] == ["large", "small"]  # the larger one first
    assert [child["wnid"] for child in root["children"][0]["children"]] == ["inner"]
    assert tree["mistake_severity"] == 7.3612
    assert "categories" not in tree


def test_small_categories_of_many_classes_are_left_out(run):
    found = evaluation(run)
    found.content["classes"] = ["x"] * 1250
    (root,) = categories.tree(found, "raw")["roots"]
    assert [child["wnid"] for child in root["children"]] == ["large", "small"]
    assert root["children"][0]["children"] == []  # 2 of 1,250
    assert not root["open"]


def test_the_page_has_both_sections(run):
    page = write_report([run]).read_text()
    assert "name of root › name of chain" in page  # noqa: RUF001
    assert "Mean over mistakes 7.36, over the 1, 5 most likely classes of all images 0.85, 6.50." in page
    assert "87.12\u00a0%" in page
    assert "three</strong>" in page
    assert "taken for five (1)" in page
    assert "&lt;b&gt;.png" in page
    assert "eval/digits-validation/00000001.jpg" in page
    small = page[page.index("name of small") :].split("</div>")[0]
    assert small.count("–") == 3  # noqa: RUF001 no image, no score


def test_a_picture_outside_the_run_is_not_linked(run):
    found = read.read_run(run, "x")
    found.evaluations[0].content["worst"]["raw"][0]["examples"][0]["thumbnail"] = "../config.json"
    assert categories.worst(found, found.evaluations[0], "raw")[0]["examples"][0]["link"] is None


def test_what_is_missing_is_said_or_left_out(run):
    path = run / "eval" / "digits-validation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"hierarchy": {"absent": "Install WordNet <3.0>."}, "worst": {}}))
    page = write_report([run]).read_text()
    assert "Install WordNet &lt;3.0&gt;." in page
    assert 'id="worst"' not in page
    for other in ({"hierarchy": None}, {"hierarchy": {"wnids": [], "ema": SCORES}}):
        path.write_text(json.dumps(content | other))
        assert categories.tree(evaluation(run), "raw") is None
