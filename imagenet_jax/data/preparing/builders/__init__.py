"""The tfds builders behind `imagenet_jax.prepare`, one file a data set."""
