"""Data on the host: preparing, reading, decoding and augmenting images with numpy and tfds. Never imports jax."""
