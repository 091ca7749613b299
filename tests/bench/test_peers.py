"""What is measured is what is drawn: the batches of the peers that need nothing beyond the default install."""

import numpy as np
import pytest

from imagenet_jax.bench import input as bench
from imagenet_jax.bench.peers import opencv, pillow_processes
from imagenet_jax.bench.task import Task, draw_view
from imagenet_jax.data.reading.sources import open_source


@pytest.mark.parametrize("peer", [opencv, pillow_processes])
def test_batches_are_the_views_of_the_images_in_turn(peer, jpegs):
    data = bench.load(open_source(jpegs, "jpegs", "train"), 1000)
    task = Task(data.memory, data.stored, 2, 16, 5, None, True)
    views, images, square = peer.batches(task), task.images, peer.square(task)
    for step in range(6):
        batch = next(views)
        assert batch.dtype == np.uint8
        wanted = [square(images[n % len(images)], draw_view(16, n)) for n in range(5 * step, 5 * step + 5)]
        assert np.array_equal(batch, wanted)
