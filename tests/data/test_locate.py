import pathlib

from imagenet_jax.data.locate import data_dir


def test_flag_before_environment_before_default(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data_dir("~/sets") == pathlib.Path.home() / "sets"
    assert data_dir(None) == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_dir(None) == pathlib.Path.home() / "tensorflow_datasets"
