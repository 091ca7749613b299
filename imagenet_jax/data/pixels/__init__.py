"""From encoded bytes to the model's square: `decode.render`, on any of its engines."""
