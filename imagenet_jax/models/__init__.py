"""The model zoo: `create` a Linen classifier by name, `list_models`, and what one costs. See layers.Classifier."""

from imagenet_jax.models.classifier import ZOO, Cost, cost, create, list_models
from imagenet_jax.models.depth import depths
from imagenet_jax.models.layers import Classifier

__all__ = ["ZOO", "Classifier", "Cost", "cost", "create", "depths", "list_models"]
