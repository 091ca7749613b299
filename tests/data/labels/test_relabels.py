"""Files of other labels for the validation images: of the shape that is published, and of others."""

import importlib.resources
import json

import pytest

from imagenet_jax.data.labels import relabels
from imagenet_jax.data.labels.classes import wnids
from imagenet_jax.errors import UserError


@pytest.fixture
def put(tmp_path):
    """put(name, content) writes it where it is looked for; returns the data directory."""

    def write(name, content):
        place = tmp_path / "downloads" / "manual" / relabels.LABELS[name].file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


def val(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def test_real_goes_by_number_and_leaves_out_images_without_a_label(put):
    assert relabels.find(put("ReaL", [[], [970, 795], [230]]), "ReaL") == {val(2): {970, 795}, val(3): {230}}


def test_the_published_list_of_real(put, timm):
    """46,837 images have a label (Beyer et al. 2020, section 3); the file as timm ships it."""
    text = (importlib.resources.files("timm.data._info") / "imagenet_real_labels.json").read_text()
    right = relabels.find(put("ReaL", text), "ReaL")
    assert right is not None
    assert len(right) == 46_837
    assert right[val(2)] == {970, 795}


def test_multilabel_takes_unclear_for_right_and_leaves_problematic_out(put):
    annotated = {
        val(1): {"correct": [wnids()[3]], "wrong": [wnids()[4]], "unclear": [wnids()[5]]},
        val(2): {"wrong": [wnids()[4]]},
        val(3): {"correct": [wnids()[3]]},
        "imagenetv2_0001.jpeg": {"correct": [wnids()[0]]},
    }
    content = {"initial_annots": annotated, "problematic_images": {val(3): "x"}, "imagenet_m": []}
    assert relabels.find(put("multilabel", content), "multilabel") == {val(1): {3, 5}, val(2): set()}


def test_no_file_no_labels(tmp_path):
    assert relabels.find(tmp_path, "ReaL") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ReaL", "[[1], "),
        ("ReaL", "[" * 100_000),
        ("ReaL", [[1000]]),
        ("ReaL", [[True]]),
        ("ReaL", [["3"]]),
        ("ReaL", 7),
        ("multilabel", {"initial_annots": {}}),
        ("multilabel", [3]),
        ("multilabel", {"initial_annots": {val(1): {"correct": ["n00000000"]}}, "problematic_images": {}}),
    ],
)
def test_other_files_are_refused(put, name, content):
    with pytest.raises(UserError, match="is not what is published at https://"):
        relabels.find(put(name, content), name)


def test_size_is_asked_before_reading(put, monkeypatch):
    monkeypatch.setattr(relabels, "LIMIT", 3)
    with pytest.raises(UserError, match="more than 3"):
        relabels.find(put("ReaL", [[1]]), "ReaL")
