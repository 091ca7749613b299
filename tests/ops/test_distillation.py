"""What a student learns from a teacher, against torch and the definition."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.ops import distillation

STUDENT, TEACHER = np.random.default_rng(0).normal(size=(2, 6, 5)) * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_are_torchs_divergence_of_softened_probabilities(torch, x64, temperature):
    student, teacher = (torch.log_softmax(torch.tensor(x) / temperature, -1) for x in (STUDENT, TEACHER))
    theirs = torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2
    ours = distillation.make("soft", temperature)(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-9)


def test_nothing_is_left_to_learn_from_an_equal():
    np.testing.assert_allclose(distillation.make("soft", 3.0)(jnp.asarray(TEACHER), jnp.asarray(TEACHER)), 0, atol=1e-5)


def test_the_hard_label_is_the_class_that_the_teacher_chooses(torch, x64):
    theirs = torch.nn.functional.cross_entropy(torch.tensor(STUDENT), torch.tensor(TEACHER).argmax(-1), reduction="none")
    np.testing.assert_allclose(
        distillation.make("hard", 1.0)(jnp.asarray(STUDENT), jnp.asarray(TEACHER)), theirs.numpy(), rtol=1e-9
    )


def test_an_unknown_kind():
    with pytest.raises(UserError, match=r"No kind of distillation, distill.kind, 'softer'. Did you mean 'soft'"):
        distillation.make("softer", 1.0)
