"""What labels mean: ImageNet's class names, WordNet above them, and the sets and labels that papers add."""
