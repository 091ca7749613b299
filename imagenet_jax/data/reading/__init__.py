"""Data sets by random access, without TensorFlow: `sources.open_source` finds one, `records.Source` is what it gives."""
