import dataclasses
import multiprocessing

import pytest

from imagenet_jax import config, train
from imagenet_jax.data.reading import cache
from imagenet_jax.data.reading.cache import CachedRecords, available_memory, cached
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError


class Counting:
    """Records that say how often each was read."""

    def __init__(self, records):
        self.records, self.reads = records, []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.records[index]


def test_every_record_is_read_once(pets):
    source = open_source(pets[0], "pets", "train")
    counting = Counting(source.records)
    (kept,) = cached(dataclasses.replace(source, records=counting))
    assert counting.reads == []
    for _ in range(3):
        assert [kept.read(i) for i in range(20)] == [source.read(i) for i in range(20)]
    assert counting.reads == list(range(20))
    assert (kept.fingerprint, kept.classes, len(kept)) == (source.fingerprint, source.classes, 20)


def test_what_does_not_fit_is_refused_with_both_numbers(pets, monkeypatch):
    train, validation = (open_source(pets[0], "pets", split) for split in ("train", "validation"))
    monkeypatch.setattr(cache, "available_memory", lambda: 20 * 10**9)
    big = dataclasses.replace(train, nbytes=10 * 10**9)
    assert len(cached(big)) == 1
    for sources, processes in (((big, dataclasses.replace(validation, nbytes=9 * 10**9)), 1), ((big,), 2)):
        with pytest.raises(UserError, match=r"pets train.* take 2\d\.\d\d GB of memory.*20\.00 GB are available"):
            cached(*sources, processes=processes)


def test_a_copy_in_another_process_starts_empty(pets):
    (kept,) = cached(open_source(pets[0], "pets", "train"))
    expected = [kept.read(i) for i in range(20)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(kept.read, range(20)) == expected


def test_the_config_switches_it_on(tiny_config, tiny_data):
    c = config.plain(tiny_config)
    assert not any(isinstance(source.records, CachedRecords) for source in train.open_data(c, tiny_data))
    c["data"]["cache"] = True
    assert all(isinstance(source.records, CachedRecords) for source in train.open_data(c, tiny_data))


MACHINE = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8000 kB\n"}
V2 = {"proc/self/cgroup": "0::/job/step\n"}
V1 = {"proc/self/cgroup": "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n"}


def group(folder, limit, used, stat="anon 1", v1=False):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    texts = {names[0]: limit, names[1]: used, "memory.stat": stat}
    return {f"sys/fs/cgroup/{folder}{name}": f"{text}\n" for name, text in texts.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, 8_192_000),
        (MACHINE | V2, 8_192_000),
        (MACHINE | V2 | group("job/step/", "max", 900), 8_192_000),
        (MACHINE | V2 | group("job/step/", 5_000_000, 2_000_000), 3_000_000),
        (MACHINE | V2 | group("job/step/", 5_000_000, 4_000_000, "anon 1\ninactive_file 3500000"), 4_500_000),
        (MACHINE | V2 | group("job/step/", 5_000_000, 2_000_000) | group("job/", 5_000_000, 4_000_000), 1_000_000),
        (MACHINE | V2 | group("", 5_000_000, 4_500_000), 500_000),  # a container: its own group looks like the root
        (MACHINE | V2 | group("job/", 5, 10), 0),
        (MACHINE | V1 | group("memory/", 5_000_000, 4_000_000, "total_inactive_file 10", v1=True), 1_000_010),
        (MACHINE | V1 | group("memory/docker/abc/", 5_000_000, 4_500_000, v1=True), 500_000),
        (MACHINE | V1 | group("memory/", 2**63 - 4096, 4_000_000, v1=True), 8_192_000),
    ],
)
def test_the_machine_and_every_control_group_count(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == expected


def test_this_machine_and_one_without_meminfo(tmp_path):
    assert available_memory() > 10**7 < available_memory(tmp_path)
