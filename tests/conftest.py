"""Strict mode for every test: eight simulated CPU devices, rank promotion raises, warnings are errors (pyproject.toml)."""

import os
import pathlib

# Before jax is imported anywhere: the number of devices is read once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def _absent(reason: str) -> None:
    """Skip where something optional is absent; fail where everything must be there (.ci/run sets the variable)."""
    if os.environ.get("IMAGENET_JAX_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason} (IMAGENET_JAX_REQUIRE_ALL=1 forbids to skip)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real images that lies beside some checkouts: ilsvrc_sample/, cifar10/."""
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("IMAGENET_JAX_TEST_DATA", default))
    if not folder.is_dir():
        _absent(f"no test images in {folder}")
    return folder


@pytest.fixture(scope="session")
def torch():
    """The torch package, for reference implementations."""
    try:
        import torch as module
    except ImportError:
        _absent("torch is not installed")
    return module


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield
