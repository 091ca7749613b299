"""JPEG below the level of pixels: headers, cutting a crop out of the compressed data, restart markers, and a decoder in numba."""
