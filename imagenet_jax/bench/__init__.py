"""How fast is the input, beside what others offer: `python -m imagenet_jax.bench input|feed`.

Every contestant, ours included, runs in a process of its own (contestants.py) over the same encoded images in memory. Training uses
nothing of this.
"""
