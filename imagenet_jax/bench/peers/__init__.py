"""What others offer, one file each, imported only in the process that measures it.

Each file has
    version() -> str                               of what it measures
    batches(task) -> Iterator[uint8 array]         training views without end, (task.batch_size, task.size, task.size, 3), RGB
    square(task) -> Callable                       (encoded image, view_of) -> uint8 (size, size, 3): the view that
                                                   `view_of(height, width)` gives, by the same decoder and resize, for its quality
Views are drawn by `task.draw_view` where the peer has no crop of its own.
"""
