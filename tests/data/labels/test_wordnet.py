"""WordNet's files are read, found, and refused by name where they are not those of ImageNet."""

import pytest

from imagenet_jax.data.labels import classes, wordnet
from imagenet_jax.data.labels.hierarchy import Synset, imagenet1k, lines_of
from imagenet_jax.errors import UserError

ENTITY, LEO = "n00001740", "n00000020"
TEXT = (
    "  1 This software and database is being provided to you\n"
    "00001740 03 n 01 entity 0 000 | that which is; | not a separator  \n"
    "00000010 05 n 02 big_cat 0 cat 1 003 @ 00001740 n 0000 ~ 00000020 n 0000 + 00000030 v 0101 | a | b  \n"
    "00000020 05 n 01 Leo 0 002 @i 00000010 n 0000 @ 00001740 n 0000 | a lion  \n"
    "00000030 05 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 000 | ten words  \n"
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder with a WordNet of four nouns, and no other anywhere."""
    (tmp_path / "data.noun").write_text(TEXT)
    monkeypatch.setattr(wordnet, "PLACES", (str(tmp_path / "gone"), str(tmp_path)))
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_wordnets_lines_are_read(installed):
    nouns = wordnet.read_nouns(installed / "data.noun")
    assert nouns["n00000010"] == Synset((ENTITY,), ("big cat", "cat"))
    assert nouns[LEO] == Synset(("n00000010", ENTITY), ("Leo",))
    assert nouns["n00000030"].words == tuple("abcdefghij")
    kept = wordnet.with_ancestors(nouns, [LEO])
    assert list(kept) == ["n00000010", LEO, ENTITY]
    assert list(lines_of(kept))[1] == f"{LEO}\tn00000010 {ENTITY}\tLeo\n"


def test_what_is_above_other_classes_comes_from_wordnet(installed):
    tree = wordnet.hierarchy_of([LEO, "n00000010"])
    assert set(tree.synsets) == {LEO, "n00000010", ENTITY}
    assert tree.is_a(LEO, "n00000010")
    assert tree.nearest_classes([LEO, "n00000010"]).tolist() == [1, -1]


def test_what_is_above_ilsvrcs_classes_needs_no_wordnet(monkeypatch):
    monkeypatch.setattr(wordnet, "PLACES", ())
    assert wordnet.hierarchy_of(classes.wnids()[::7]) is imagenet1k()


def test_the_variables_of_wordnets_own_programs_name_the_folder(installed, monkeypatch):
    assert wordnet.find() == installed
    monkeypatch.setenv("WNSEARCHDIR", str(installed / "other"))
    with pytest.raises(UserError, match=r"no data.noun is in .*/other\. Install WordNet 3\.0 .*wordnet-base"):
        wordnet.find()
    monkeypatch.delenv("WNSEARCHDIR")
    (installed / "dict").mkdir()
    (installed / "dict" / "data.noun").write_text(TEXT)
    monkeypatch.setenv("WNHOME", str(installed))
    assert wordnet.find() == installed / "dict"


def test_no_wordnet_is_the_users_mistake(installed):
    (installed / "data.noun").unlink()
    with pytest.raises(UserError, match=r"These classes need WordNet.*wordnet-base"):
        wordnet.hierarchy_of([LEO])


def test_another_version_is_refused(installed):
    with pytest.raises(UserError, match="has no n00000021: it is another version"):
        wordnet.hierarchy_of([LEO, "n00000021"])


@pytest.mark.parametrize("text", ["00000020 05 n zz Leo\n", "hello\n", "00000020 05 n 01 Leo 0 002 @i\n"])
def test_a_file_of_another_format_is_refused(tmp_path, text):
    (tmp_path / "data.noun").write_text(text)
    with pytest.raises(UserError, match=r"is no data\.noun"):
        wordnet.hierarchy_of([LEO], tmp_path)


def test_names_of_classes_become_wnids():
    assert wordnet.wnids_of(["tench", "goldfish"]) == ["n01440764", "n01443537"]
    assert wordnet.wnids_of([LEO, "n01440764"]) == [LEO, "n01440764"]
    assert wordnet.wnids_of(["tench", "three"]) is None
    assert wordnet.wnids_of(["n123456789"]) is None
