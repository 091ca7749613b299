"""The table that `python -m imagenet_jax.models` prints."""

import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.models import __main__ as command


@pytest.mark.parametrize(("pattern", "names"), [("resnet[23]0", ["resnet20"]), ("t110", ["resnet110"])])
def test_a_pattern_selects_rows(capsys, pattern, names):
    assert command.main([pattern]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "parameters", "GMACs", "size", "top-1", "source", "weights", "of"]
    assert [row.split()[0] for row in rows] == names


def test_a_row_holds_the_published_numbers(capsys):
    command.main(["resnet18"])
    row = ["resnet18", "11,689,512", "1.814", "224", "69.76", "torchvision", "IMAGENET1K_V1"]
    row += ["torchvision,", "timm,", "transformers"]
    assert capsys.readouterr().out.splitlines()[1].split() == row


def test_an_accuracy_that_nobody_published_is_left_out(capsys):
    command.main(["resnet8"])
    assert capsys.readouterr().out.splitlines()[1].split() == ["resnet8", "75,290", "0.012", "32", "-"]


def test_no_match_is_the_users_mistake():
    with pytest.raises(UserError, match="No model 'resnet5O'"):
        command.main(["resnet5O"])
