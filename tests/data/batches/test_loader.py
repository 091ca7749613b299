import contextlib
import dataclasses
import gc
import io
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.data import order
from imagenet_jax.data.augmentation.augment import central, chain
from imagenet_jax.data.batches.loader import eval_batches, train_batches
from imagenet_jax.data.batches.views import Pixels, Rows
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import AS_THEY_CAME, Source
from imagenet_jax.data.reading.sources import ExampleRecords
from imagenet_jax.errors import RunError

IMAGES = 23
SIZE = 16
RECIPE = [("random_resized_crop", {"area": (0.3, 1.0)}), ("flip", {})]
AUGMENT = chain(RECIPE)
PIXELS = Pixels(decode.engine("opencv"), SIZE, 0.875, True)


def record(image, label, name):
    message = tf_example_pb2.Example()
    message.features.feature["image"].bytes_list.value.append(image)
    message.features.feature["label"].int64_list.value.append(label)
    message.features.feature["file_name"].bytes_list.value.append(name.encode())
    return message.SerializeToString()


def source_of(images):
    """A source in memory: example i has label i % 5."""
    records = [record(image, i % 5, f"{i}.png") for i, image in enumerate(images)]
    return Source("toy", "1.0.0", "train", tuple("abcde"), "0" * 64, AS_THEY_CAME, sum(map(len, records)), examples(records))


def examples(records):
    return ExampleRecords(records, ("image", "label", "file_name"), "train")


def noisy(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(1, 256, (24 + seed, 40 - seed, 3), np.uint8)  # every image has a shape of its own
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def source():
    return source_of([noisy(i) for i in range(IMAGES)])


def train(source, *, augment=AUGMENT, batch_size=8, rows=None, start=0, stop=6, seed=3, **settings):
    rows = rows or Rows(0, batch_size)
    return train_batches(source, PIXELS, augment, seed=seed, batch_size=batch_size, rows=rows, start=start, stop=stop, **settings)


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys() == {"image", "label", "mask", "id", "instead_of"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def side_by_side(*parts):
    """What several processes loaded, as one process would have."""
    return [{key: np.concatenate([b[key] for b in batches]) for key in batches[0]} for batches in zip(*parts, strict=True)]


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_batches_are_what_order_augment_and_decode_say(source):
    # 6 batches of 8 are two epochs of 23 and two examples: the third batch straddles an epoch.
    for step, batch in enumerate(train(source)):
        epochs, ids, _ = order.examples(step * 8, 8, IMAGES, 3)
        assert (batch["image"].dtype, batch["image"].shape) == (np.uint8, (8, SIZE, SIZE, 3))
        assert [batch[k].dtype for k in ("label", "mask", "id")] == [np.int32, bool, np.int64]
        np.testing.assert_array_equal(batch["id"], ids)
        np.testing.assert_array_equal(batch["label"], ids % 5)
        assert batch["mask"].all()
        for slot, (epoch, i) in enumerate(zip(epochs.tolist(), ids.tolist(), strict=True)):
            image = decode.whole(noisy(i), PIXELS.engine)
            view = AUGMENT.view(central(*image.shape[:2], SIZE, 1.0), order.Draws(3, epoch, i, 0))
            out = np.empty((SIZE, SIZE, 3), np.uint8)
            decode.render(noisy(i), lambda h, w, view=view: view, PIXELS.engine, True, out)
            np.testing.assert_array_equal(batch["image"][slot], out)
    assert step == 5


def test_transforms_work_on_the_finished_square_with_the_draws_after_the_view(source):
    both = chain([*RECIPE, ("trivial_augment", {})])  # some of its operations work in place, some give a new array
    changed = 0
    for step, (before, after) in enumerate(zip(train(source, repeats=3), train(source, repeats=3, augment=both), strict=True)):
        np.testing.assert_array_equal(before["id"], after["id"])
        for slot, place in enumerate(zip(*order.examples(step * 8, 8, IMAGES, 3, 3, 8), strict=True)):
            draws = order.Draws(3, *map(int, place))
            AUGMENT.view(central(24 + int(place[1]), 40 - int(place[1]), SIZE, 1.0), draws)
            expected = both.pixels(before["image"][slot].copy(), draws)
            np.testing.assert_array_equal(after["image"][slot], expected)
            changed += not np.array_equal(expected, before["image"][slot])
    assert changed > 24


def test_repeated_images_are_dealt_out_over_their_batch_in_views_of_their_own(source):
    for step, batch in enumerate(train(source, repeats=3, batch_size=6)):
        np.testing.assert_array_equal(batch["id"], order.examples(step * 6, 6, IMAGES, 3, 3, 6)[1])
        if step < 3:  # two images in three views each; the fourth batch straddles an epoch
            assert batch["id"].tolist() == batch["id"][:2].tolist() * 3
            for i in range(2):
                assert len({image.tobytes() for image in batch["image"][i::2]}) == 3


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("prefetch", [0, 1, 20])
def test_neither_threads_nor_prefetch_change_a_pixel(source, threads, prefetch):
    assert_same(train(source, threads=threads, prefetch=prefetch), train(source, threads=3))
    batches = eval_batches(source, PIXELS, batch_size=7, rows=Rows(0, 7), threads=threads, prefetch=prefetch)
    assert_same(batches, eval_batches(source, PIXELS, batch_size=7, rows=Rows(0, 7), threads=3))


@pytest.mark.parametrize("processes", [1, 2, 4, 5])
def test_rows_of_all_processes_are_the_global_batch(source, processes):
    share = 20 // processes
    parts = [train(source, batch_size=20, rows=Rows(p * share, share)) for p in range(processes)]
    assert_same(side_by_side(*parts), train(source, batch_size=20))


@pytest.mark.parametrize("start", [0, 1, 3, 6])
def test_starting_later_gives_the_same_batches(source, start):
    assert_same(train(source, start=start), list(train(source))[start:])


def test_seeds_differ(source):
    one, other = next(train(source, stop=1)), next(train(source, stop=1, seed=4))
    assert one["id"].tolist() != other["id"].tolist()


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 12, 64])
def test_eval_covers_every_image_once_on_any_number_of_processes(source, batch_size, processes):
    share = batch_size // processes
    rows = [Rows(p * share, share) for p in range(processes)]
    batches = side_by_side(*(eval_batches(source, PIXELS, batch_size=batch_size, rows=r) for r in rows))
    assert_same(batches, eval_batches(source, PIXELS, batch_size=batch_size, rows=Rows(0, batch_size)))
    check_exact(source, batches, batch_size)


@pytest.mark.parametrize("batch_size", [1, 7, IMAGES, IMAGES + 1, 64])
def test_eval_covers_every_image_once_in_order(source, batch_size):
    check_exact(source, list(eval_batches(source, PIXELS, batch_size=batch_size, rows=Rows(0, batch_size))), batch_size)


def check_exact(source, batches, batch_size):
    assert len(batches) == -(-IMAGES // batch_size)
    image, label, mask, ids = (np.concatenate([b[key] for b in batches]) for key in ("image", "label", "mask", "id"))
    np.testing.assert_array_equal(ids[mask], np.arange(IMAGES))
    np.testing.assert_array_equal(label[mask], np.arange(IMAGES) % 5)
    assert not mask[IMAGES:].any()
    assert (image[~mask] == 0).all()
    assert (ids[~mask] == -1).all()
    for i in (0, IMAGES - 1):
        out = np.empty((SIZE, SIZE, 3), np.uint8)
        decode.render(source.read(i).image, lambda h, w: central(h, w, SIZE, 0.875), PIXELS.engine, True, out)
        np.testing.assert_array_equal(image[i], out)


def test_a_process_without_images_in_the_last_batch_gives_a_batch_of_padding(source):
    last = list(eval_batches(source, PIXELS, batch_size=20, rows=Rows(10, 10)))[-1]  # 3 images are left, all in rows 0 .. 9
    assert not last["mask"].any()
    assert (last["image"] == 0).all()
    assert last["image"].shape == (10, SIZE, SIZE, 3)


def test_an_image_that_does_not_decode_is_named_and_ends_the_run():
    bad = source_of([noisy(0), noisy(1), b"no image at all", noisy(3)])
    with pytest.raises(RunError, match=r"2\.png \(example 2 of toy, split train\) does not decode: .*prepare"):
        list(eval_batches(bad, PIXELS, batch_size=2, rows=Rows(0, 2)))
    assert not decoders()


def test_a_record_that_cannot_be_read_ends_the_run(source):
    bad = dataclasses.replace(source, records=examples([*source.records.stored[:5], b"\xff\xff"]))
    with pytest.raises(RunError, match="Example 5 of toy"):
        list(eval_batches(bad, PIXELS, batch_size=2, rows=Rows(0, 2)))
    assert not decoders()


def test_batches_before_a_bad_image_are_still_handed_out():
    bad = source_of([noisy(0), noisy(1), noisy(2), noisy(3), b"no image"])
    batches = eval_batches(bad, PIXELS, batch_size=2, rows=Rows(0, 2))
    assert [next(batches)["id"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(RunError):
        next(batches)


def test_no_thread_outlives_the_iterator(source):
    assert not decoders()
    batches = train(source, threads=3)
    next(batches)
    assert decoders()
    list(batches)
    assert not decoders()  # at the end

    batches = train(source, stop=1000, threads=3)
    next(batches)
    batches.close()
    assert not decoders()  # closed early

    with contextlib.suppress(KeyError), contextlib.closing(train(source, stop=1000, threads=3)) as batches:
        for _ in batches:
            raise KeyError("the consumer failed")
    assert not decoders()

    train(source).close()  # never begun
    assert not decoders()


def test_no_thread_outlives_a_consumer_that_fails_and_closes_nothing(source):
    def consume():
        for _ in train(source, stop=1000, threads=3):
            raise KeyError("the consumer failed")

    with contextlib.suppress(KeyError):
        consume()
    gc.collect()
    assert not decoders()


class Counting(list):
    """Records that count how often they are read."""

    def __init__(self, records):
        super().__init__(records)
        self.reads = itertools.count()
        self.seen = 0

    def __getitem__(self, index):
        self.seen = next(self.reads) + 1
        return super().__getitem__(index)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_no_more_than_prefetch_batches_are_decoded_ahead(source, prefetch):
    counting = Counting(source.records)
    batches = train(dataclasses.replace(source, records=counting), stop=50, threads=2, prefetch=prefetch)
    for taken in range(1, 6):
        next(batches)
        deadline = time.monotonic() + 5
        while counting.seen < 8 * (taken + prefetch) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert counting.seen == 8 * (taken + prefetch)
    batches.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_memory_under_way_is_bounded(source, monkeypatch, prefetch):
    arrays: list[weakref.ref] = []  # of every batch that was ever begun
    render, most = decode.render, 0

    def watching(data, view_of, engine, antialias, out, most):
        if not any(ref() is out.base for ref in arrays):
            arrays.append(weakref.ref(out.base))
        render(data, view_of, engine, antialias, out, most)

    monkeypatch.setattr(decode, "render", watching)
    for _ in train(source, stop=30, threads=1, prefetch=prefetch):
        time.sleep(0.002)
        most = max(most, sum(ref() is not None for ref in arrays))
    assert len(arrays) == 30
    assert prefetch < most <= prefetch + 2  # under way, handed out, and the one before until the next is begun


@pytest.mark.parametrize("threads", [0, 1])
def test_as_many_threads_as_asked_for_or_one_a_core(source, monkeypatch, threads):
    monkeypatch.setattr("imagenet_jax.data.batches.threads.visible_cores", lambda: 2)
    together = threading.Barrier(threads or 2)

    def meeting(*args):
        together.wait(timeout=10)  # passes only where that many decode at once

    monkeypatch.setattr(decode, "render", meeting)
    batches = train(source, stop=4, threads=threads)
    next(batches)
    assert len(decoders()) == (threads or 2)
    list(batches)


def test_batches_are_fresh_memory(source):
    batches = list(train(source))
    assert not any(np.shares_memory(a["image"], b["image"]) for a, b in itertools.combinations(batches, 2))


BAD = b"no image"


def with_broken(broken):
    return source_of([BAD if i in broken else noisy(i) for i in range(IMAGES)])


@pytest.mark.parametrize("threads", [1, 8])
def test_a_broken_image_gives_way_to_the_next_id_that_decodes(threads):
    broken = {0, 4, 5, 6, 22}
    instead = {0: 1, 4: 7, 5: 7, 6: 7, 22: 1}  # behind the last comes the first
    due = np.concatenate([order.examples(step * 8, 8, IMAGES, 3)[1] for step in range(6)]).tolist()
    batches = list(train(with_broken(broken), broken="substitute", threads=threads))
    ids, instead_of, labels = (np.concatenate([b[key] for b in batches]).tolist() for key in ("id", "instead_of", "label"))
    assert ids == [instead.get(i, i) for i in due]
    assert instead_of == [i if i in broken else -1 for i in due]
    assert labels == [i % 5 for i in ids]
    assert_same(batches, train(with_broken(broken), broken="substitute", threads=3))
    for ours, whole in zip(batches, train(source_of([noisy(i) for i in range(IMAGES)])), strict=True):
        np.testing.assert_array_equal(ours["image"][ours["instead_of"] < 0], whole["image"][ours["instead_of"] < 0])


def test_so_many_broken_in_a_row_end_the_run():
    list(train(with_broken(set(range(15))), broken="substitute"))
    with pytest.raises(RunError, match="16 examples in a row"):
        list(train(with_broken(set(range(16))), broken="substitute"))


def test_unless_asked_for_nothing_is_substituted():
    with pytest.raises(RunError, match=r"4\.png \(example 4 of toy"):
        list(train(with_broken({4})))
    with pytest.raises(RunError, match=r"4\.png \(example 4 of toy"):
        list(eval_batches(with_broken({4}), PIXELS, batch_size=8, rows=Rows(0, 8)))


def test_sizes_change_with_the_step_and_a_resumed_run_sees_the_same(source):
    """6 batches, of 12 pixels up to step 3 and of 20 from there on; nothing but the size differs from a run of that size."""
    grown = list(train(source, sizes=((0, 12), (3, 20)), threads=3))
    assert [b["image"].shape for b in grown] == [(8, 12, 12, 3)] * 3 + [(8, 20, 20, 3)] * 3
    assert_same(train(source, sizes=((0, 12), (3, 20)), start=2), grown[2:])
    assert_same(train(source, sizes=((0, 20),), start=3), grown[3:])
    assert [b["id"].tolist() for b in grown] == [b["id"].tolist() for b in train(source)]
