import pathlib

import pytest

from imagenet_jax.data.storage.locate import data_dir, private, user_cache
from imagenet_jax.errors import UserError


def test_flag_before_environment_before_default(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data_dir("~/sets") == pathlib.Path.home() / "sets"
    assert data_dir(None) == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_dir(None) == pathlib.Path.home() / "tensorflow_datasets"


def test_the_users_cache_is_private_and_nothing_is_made_before_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = user_cache("data")
    assert folder == tmp_path / "cache" / "imagenet_jax" / "data"
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True, mode=0o755)
    assert private(folder).stat().st_mode & 0o777 == 0o700
    (folder / "file").touch()
    with pytest.raises(UserError, match=r"file/x cannot be written: .* Set XDG_CACHE_HOME"):
        private(folder / "file" / "x")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache("index") == pathlib.Path.home() / ".cache" / "imagenet_jax" / "index"
