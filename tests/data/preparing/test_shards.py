import threading
import time

from imagenet_jax.data.preparing.shards import in_order, shard_count


def test_results_come_in_the_order_of_the_items():
    def slow_first(item):
        time.sleep(0.02 if item % 5 == 0 else 0)
        return item * item

    assert list(in_order(slow_first, range(40), jobs=4)) == [item * item for item in range(40)]


def test_no_more_than_a_bounded_number_of_items_is_taken_ahead():
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), jobs=2)
    for _ in range(3):
        next(results)
    assert len(taken) <= 3 + 4 * 2 + 1
    results.close()


def test_a_reader_that_stops_early_leaves_no_thread_behind():
    results = in_order(lambda item: item, range(100), jobs=3)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_imagenet_has_as_many_shards_as_in_tfds_catalogue():
    assert shard_count(138 * 2**30, 1_281_167) == 1024
    assert shard_count(6 * 2**30, 50_000) == 64
