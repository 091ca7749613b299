"""Data sets by random access, nothing of TensorFlow: `sources.open_source` finds one, `records.Source` is what it gives."""
