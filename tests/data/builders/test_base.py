import threading
import time

from imagenet_jax.data.archives import Entry
from imagenet_jax.data.builders.base import in_order
from imagenet_jax.data.builders.folder import split_by_hash


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


def test_the_split_depends_on_each_name_alone():
    entries = [Entry(f"cat/{i}.jpg", "cat", "", 0, 0) for i in range(2000)]
    splits = split_by_hash(entries, 0.1)
    assert sorted(splits["train"] + splits["validation"]) == sorted(entries)
    assert 150 < len(splits["validation"]) < 250
    fewer = split_by_hash(entries[::2], 0.1)
    assert set(fewer["validation"]) == set(splits["validation"]) & set(entries[::2])
    assert set(splits["validation"]) < set(split_by_hash(entries, 0.3)["validation"])
    assert split_by_hash(entries, 0)["validation"] == []
