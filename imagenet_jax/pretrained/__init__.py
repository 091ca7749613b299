"""Weights of other people's models, in and out: files of torch's world read without torch, and the names of their tensors."""
