import json

import pytest

from imagenet_jax.data.preparing.staging import Partial, alone, check_space, folder_size
from imagenet_jax.errors import UserError


def test_a_shard_is_finished_once_that_is_recorded_and_while_it_is_whole(tmp_path):
    partial = Partial(tmp_path / "1.0.0", "digest")
    assert partial.finished("a") is None
    (partial.data / "a").write_bytes(b"12345")
    assert partial.finished("a") is None
    partial.finish("a", {"images": 3})
    again = Partial(tmp_path / "1.0.0", "digest")
    assert again.finished("a") == {"images": 3}
    (partial.data / "a").write_bytes(b"123")
    assert again.finished("a") is None
    (partial.data / "a").unlink()
    assert again.finished("a") is None


def test_another_digest_starts_anew_and_says_so(tmp_path, caplog):
    first = Partial(tmp_path / "1.0.0", "digest")
    (first.data / "a").write_bytes(b"12345")
    first.finish("a", {"images": 3})
    assert caplog.text == ""
    assert Partial(tmp_path / "1.0.0", "other").finished("a") is None
    assert "another input or other options" in caplog.text
    assert Partial(tmp_path / "1.0.0", "other").size() == 0


def test_it_gets_its_place_only_when_it_is_published(tmp_path):
    partial = Partial(tmp_path / "1.0.0", "digest")
    (partial.data / "a").write_bytes(b"12345")
    partial.finish("a", {})
    assert [path.name for path in tmp_path.iterdir()] == [".partial-1.0.0"]
    assert partial.size() == 5
    partial.publish()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["1.0.0", "1.0.0/a"]


def test_tidying_up_keeps_what_is_worth_it(tmp_path):
    partial = Partial(tmp_path / "1.0.0", "digest")
    (partial.data / "a").write_bytes(b"12345")
    partial.finish("a", {})
    partial.tidy()
    assert json.loads((partial.root / "a.json").read_text())["size"] == 5
    (partial.root / "a.json").unlink()
    partial.tidy()
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time_and_nothing_is_left_of_an_error(tmp_path):
    family = tmp_path / "pets" / "rst"
    with alone(family, tmp_path):
        with pytest.raises(UserError, match="Another process is preparing"), alone(family, tmp_path):
            pass
        assert family.is_dir()
    with alone(tmp_path / "pets" / "short256_q90", tmp_path), alone(family, tmp_path):  # another config is another data set
        pass
    with pytest.raises(ZeroDivisionError), alone(family, tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="Cannot write to"), alone(tmp_path / "file" / "rst", tmp_path):
        pass


def test_what_will_be_freed_counts_as_free(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(bytes(1000))
    assert folder_size(tmp_path) == 1000
    assert folder_size(tmp_path / "nowhere") == 0
    check_space(tmp_path, 1000, 0)
    with pytest.raises(UserError, match=r"the data set needs 1,050,000,000\.02 GB"):
        check_space(tmp_path, 10**18, 0)
    check_space(tmp_path, 10**18, 2 * 10**18)
