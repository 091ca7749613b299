from imagenet_jax.data.preparing.builders.folder import split_by_hash
from imagenet_jax.data.storage.entries import Entries


def entries_of(names):
    entries = Entries()
    for name in names:
        entries.add(name, "cat", "", 0, 0)
    return entries


def test_the_split_depends_on_each_name_alone():
    names = [f"cat/{i}.jpg" for i in range(2000)]
    splits = {split: list(part.names()) for split, part in split_by_hash(entries_of(names), 0.1).items()}
    assert sorted(splits["train"] + splits["validation"]) == sorted(names)
    assert 150 < len(splits["validation"]) < 250
    fewer = split_by_hash(entries_of(names[::2]), 0.1)
    assert set(fewer["validation"].names()) == set(splits["validation"]) & set(names[::2])
    assert set(splits["validation"]) < set(split_by_hash(entries_of(names), 0.3)["validation"].names())
    assert not split_by_hash(entries_of(names), 0)["validation"]
