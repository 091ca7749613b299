"""The tfds builders behind `imagenet_jax.prepare`, one file a data set, and the script that made the class names."""
