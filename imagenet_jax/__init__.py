"""Train image classifiers on ImageNet with JAX and Flax. Start reading at main.py."""

__version__ = "0.1.0"
