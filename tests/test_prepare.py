import io
import os
import subprocess
import sys
import tarfile

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_jax import cli, prepare
from imagenet_jax.data.preparing import shards
from imagenet_jax.data.reading import sources
from imagenet_jax.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """Two classes of two PNG files."""
    for index, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 50, 0, 0)).save(path)
    return tmp_path / "photos"


def run(*args, **environment):
    """Exit code, stdout and stderr of the command in a process of its own, off a terminal."""
    line = [sys.executable, "-m", "imagenet_jax.prepare", *map(str, args)]
    process = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
    return process.returncode, process.stdout, process.stderr


def test_the_command_says_what_is_there_and_nothing_else(photos, tmp_path):
    code, output, errors = run("folder", "--name=pets", f"--train={photos}", TFDS_DATA_DIR=str(tmp_path / "data"))
    assert (code, errors) == (cli.FINISHED, "")
    assert output.splitlines()[0] == f"pets 1.0.0 is prepared: {tmp_path}/data/pets/1.0.0"
    assert "4 images in 2 classes" in output
    assert "downloaded" not in output  # tfds' own words
    assert (tmp_path / "data" / "pets" / "1.0.0" / "dataset_info.json").is_file()


def test_exit_code_3_names_what_was_left_out_and_a_rerun_is_0(photos, tmp_path, capsys):
    (photos / "dog" / "evil\x1b[2J.jpg").write_bytes(b"no image")
    arguments = ["folder", "--name=pets", f"--train={photos}", f"--data_dir={tmp_path}"]
    assert prepare.main(arguments) == cli.PARTLY
    output = capsys.readouterr().out
    assert "left out" in output
    assert r"evil\x1b[2J.jpg" in output
    assert "\x1b" not in output
    assert prepare.main(arguments) == cli.FINISHED
    assert "was prepared before" in capsys.readouterr().out
    assert prepare.main([*arguments, "--overwrite"]) == cli.PARTLY


def test_mistakes_are_one_message_and_exit_code_2(tmp_path):
    code, output, errors = run("imagenet2012", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}")
    assert (code, output) == (cli.USER_MISTAKE, "")
    assert errors.startswith("error: Neither ILSVRC2012_img_train.tar nor ILSVRC2012_img_val.tar is in")
    assert "Traceback" not in errors


def test_tars_are_looked_for_where_tfds_does_by_default(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/downloads/manual"):
        prepare.main(["imagenet2012", f"--data_dir={tmp_path}"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name=x"],
        ["--name=x", "--validation=v"],
        ["--name=x", "--train=t", "--source=s"],
        ["--name=x", "--source=s", "--validation=v"],
        ["--name=x", "--source=s", "--validation_share=1"],
        ["--name=x", "--train=t", "--validation=v", "--validation_share=0.1"],
    ],
)
def test_inputs_that_do_not_go_together(arguments, tmp_path):
    with pytest.raises(UserError, match=r"--source|--validation_share"):
        prepare.main(["folder", *arguments, f"--data_dir={tmp_path}"])


def test_reencoding_says_what_it_bought_and_takes_a_name_of_its_own(photos, tmp_path, capsys):
    where = [f"--train={photos}", f"--data_dir={tmp_path}", "--name=pets"]
    assert prepare.main(["folder", *where]) == cli.FINISHED
    assert "bytes an image" not in capsys.readouterr().out
    for flags, config in (["--short_side=16"], "short16_q90"), (["--max_side=16", "--quality=50"], "max16_q50"):
        assert prepare.main(["folder", *flags, *where]) == cli.FINISHED
        output = capsys.readouterr().out
        assert f"pets/{config} 1.0.0 is prepared: {tmp_path}/pets/{config}/1.0.0" in output
        assert f"Use it with --config.dataset=pets/{config}" in output
        for expected in ("JPEG quality", "bytes an image before", "on a sample of 4 images: decoded in full", "dB to the original"):
            assert expected in output
    source = sources.open_source(tmp_path, "pets/max16_q50", "train")
    assert source.dataset == "pets/max16_q50"
    assert sources.open_source(tmp_path, "pets", "train").dataset == "pets"  # the plain one keeps its name
    metadata = tfds.builder_from_directory(tmp_path / "pets" / "max16_q50" / "1.0.0").info.metadata
    assert metadata["encoding"] == {"short_side": None, "max_side": 16, "quality": 50, "restart_markers": False}
    sizes = [len(source.read(i).image) for i in range(4)]
    assert metadata["image_bytes"]["train"] == {"before": sum(p.stat().st_size for p in photos.rglob("*.png")), "after": sum(sizes)}
    plain = tfds.builder_from_directory(tmp_path / "pets" / "1.0.0").info.metadata
    assert plain["encoding"] == {"short_side": None, "max_side": None, "quality": None, "restart_markers": False}


def test_a_run_that_was_killed_says_nothing_new_and_goes_on_with_overwrite_too(photos, tmp_path, monkeypatch, capsys):
    where = ["folder", f"--train={photos}", f"--data_dir={tmp_path}", "--name=pets"]
    prepare.main(where)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_write_info", lambda *args: 1 / 0)  # all shards are there
        with pytest.raises(ZeroDivisionError):
            prepare.main([*where, "--overwrite"])
    assert not (tmp_path / "pets" / "1.0.0").exists()
    monkeypatch.setattr(shards, "_write_shard", lambda *args: 1 / 0)
    assert prepare.main(where) == cli.FINISHED
    assert (tmp_path / "pets" / "1.0.0" / "dataset_info.json").exists()


@pytest.mark.parametrize(
    "flags", [["--short_side=256", "--max_side=500"], ["--short_side=0"], ["--restart_markers=1"], ["--quality=x"]]
)
def test_encodings_that_cannot_be(flags, capsys):
    with pytest.raises(SystemExit) as exit:
        prepare.main(["imagenet2012", *flags])
    assert exit.value.code == cli.USER_MISTAKE


def test_quality_alone_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="goes with --short_side or --max_side"):
        prepare.main(["imagenet2012", "--quality=80", f"--data_dir={tmp_path}"])


def test_help_states_the_split_of_imagenet21k(capsys):
    with pytest.raises(SystemExit):
        prepare.main(["imagenet21k", "--help"])
    assert "min(50, n // 10)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["folder"], ["digits", "--jobs=0"], ["digits", "--over"]])
def test_flags_that_do_not_exist_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        prepare.main(arguments)
    assert exit.value.code == cli.USER_MISTAKE
    assert "usage:" in capsys.readouterr().err


def test_counts_are_set_against_the_official_ones(tmp_path, capsys):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    info = tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG")
    info.size = len(buffer.getvalue())
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(buffer.getvalue()))
    assert prepare.main(["imagenet2012", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}"]) == cli.FINISHED
    output = capsys.readouterr().out
    assert "1 images in 1 classes; official: 50,000 in 1,000 - DIFFERS" in output
    assert "ILSVRC2012_img_train.tar was not there" in output
    assert prepare._compared(50_000, 1000, (50_000, 1000)) == "; official: 50,000 in 1,000"
