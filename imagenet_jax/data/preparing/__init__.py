"""From the user's archives and folders to data sets in tfds' format, and the proof that they hold what they should."""
