import tensorflow_datasets as tfds

from imagenet_jax.data.labels import classes


def test_the_table_has_the_official_labels_in_the_official_order():
    assert classes.wnids() == tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()


def test_names_are_distinct_and_readable():
    names = classes.readable(classes.wnids())
    assert len({name.lower() for name in names}) == 1000
    assert not [name for name in names if "_" in name or name != name.strip() or not name]
    by_wnid = dict(zip(classes.wnids(), names, strict=True))
    assert by_wnid["n01440764"] == "tench"
    assert by_wnid["n02012849"] == "crane (wading bird)"
    assert by_wnid["n03126707"] == "crane (lifting device)"
    assert by_wnid["n15075141"] == "toilet tissue"


def test_only_whole_lists_of_wnids_are_translated():
    assert classes.readable(["n01443537", "n01440764"]) == ["goldfish", "tench"]
    assert classes.readable(["n01440764", "my_fish"]) == ["n01440764", "my_fish"]
    assert classes.readable([]) == []
