"""`bench input`: which rows there are, their rounds, and what is made of them.

A row is one contestant on one number of cores. Rounds are interleaved (A B C A B C ...), so that a slow minute of the machine hits
all alike, and compared in pairs. What cannot be measured stays in the table with the reason.
"""

import contextlib
import dataclasses
import os
import pathlib
import platform
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from imagenet_jax import runtime
from imagenet_jax.bench import stats
from imagenet_jax.bench.contestants import PINNED, Absent, Contestant, Failed, visible_cores
from imagenet_jax.bench.task import Task
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import Source
from imagenet_jax.errors import UserError

ORIGINAL, MARKED, SMALL = "original", "marked", "small"  # the flags' data sets
FILES = {ORIGINAL: "files as they are", MARKED: "restart markers", SMALL: "small files"}  # for people
NOTHING = "ours, nothing decoded"
MEASURED = "measured"


class Peer(NamedTuple):
    """One way of others: its module, and whether it averages where a crop shrinks."""

    module: str
    antialias: bool
    pixels: bool = True


PEERS: dict[str, Peer] = {
    "tf.data": Peer("peers.tf_data", False),
    "Pillow processes": Peer("peers.pillow_processes", True),
    "DALI": Peer("peers.dali", True),
    "grain, our decode": Peer("peers.grain_threads", True),
    "grain, nothing decoded": Peer("peers.grain_threads", True, pixels=False),
    "OpenCV": Peer("peers.opencv", False),
    "simplejpeg": Peer("peers.simplejpeg_opencv", False),
    "nvImageCodec": Peer("peers.nvimagecodec", False),
    "FFCV on its own files": Peer("peers.ffcv_loader", True),
}


class Row(NamedTuple):
    """One contestant on some cores."""

    contestant: str  # "ours", NOTHING, or a key of PEERS
    data: str  # ORIGINAL, MARKED or SMALL
    engine: str | None
    antialias: bool
    cores: int

    @property
    def label(self) -> str:
        """For people."""
        return f"ours, {FILES[self.data]}, {self.engine}" if self.contestant == "ours" else self.contestant

    @property
    def pixels(self) -> bool:
        """Whether it decodes anything."""
        return PEERS[self.contestant].pixels if self.contestant in PEERS else self.contestant != NOTHING


class Settings(NamedTuple):
    """What is the same for all rows."""

    size: int  # pixels, side of the square
    batch_size: int
    rounds: int
    seconds: float  # that a turn is timed for, after its drain
    crops: int  # over which quality is measured


class Data(NamedTuple):
    """One of the data sets: as it is stored, and its first images in memory."""

    stored: Source
    memory: Source


def load(stored: Source, images: int) -> Data:
    """The first `images` records of a source into memory. Those of a prepared data set stand in shuffled order."""
    return Data(stored, dataclasses.replace(stored, records=[stored.read(i) for i in range(min(images, len(stored)))]))


def plan(given: Sequence[str], engines: Sequence[str], cores: Sequence[int], peers: Sequence[str], same: str) -> list[Row]:
    """All rows, those of one number of cores together. Peers see the original files; grain decodes with the engine `same`."""
    rows = []
    for count in cores:
        rows += [Row("ours", data, engine, aa, count) for data in given for engine in engines for aa in (True, False)]
        rows.append(Row(NOTHING, ORIGINAL, None, True, count))
        for name in peers:
            engine = same if PEERS[name].module == "peers.grain_threads" and PEERS[name].pixels else None
            rows.append(Row(name, ORIGINAL, engine, PEERS[name].antialias, count))
    return rows


def measure(data: dict[str, Data], rows: Sequence[Row], settings: Settings, log: pathlib.Path) -> list[dict[str, Any]]:
    """All rounds of all rows: a plain dict a row, in order, with `status` and, where that is MEASURED, its numbers."""
    results: list[dict[str, Any]] = [row._asdict() | {"label": row.label, "pixels": row.pixels, "rates": []} for row in rows]
    with contextlib.ExitStack() as stack:
        running: dict[int, Contestant] = {}
        qualities: dict[tuple, Any] = {}  # the same on any number of cores
        for number, row in enumerate(tqdm(rows, "starting", disable=None, leave=False)):
            if row.engine:
                results[number]["engine_version"] = engine_version(row.engine)
            module = PEERS[row.contestant].module if row.contestant in PEERS else "ours"
            with _noting(results[number]):
                running[number] = contestant = Contestant(module, _task(row, data[row.data], settings), log)
                stack.callback(contestant.close)
                results[number]["version"] = contestant.version
                if row[:-1] not in qualities:
                    qualities[row[:-1]] = contestant.ask("quality", crops=settings.crops)
                results[number]["quality"] = qualities[row[:-1]]
        for _ in tqdm(range(settings.rounds), "rounds", disable=None, leave=False):
            for number, contestant in running.items():
                if results[number]["status"] == MEASURED:
                    with _noting(results[number]):
                        results[number]["rates"].append(contestant.ask("turn", seconds=settings.seconds))
    for result in results:
        if result["status"] == MEASURED:
            result |= stats.summary(result["rates"])
    return results


def split(data: Data, engines: Sequence[str], settings: Settings, log: pathlib.Path) -> list[dict[str, Any]]:
    """Where one core spends an image, for each engine, antialiased and not: see ours.split."""
    found = []
    for engine in engines:
        for antialias in (True, False):
            row = Row("ours", ORIGINAL, engine, antialias, 1)
            result: dict[str, Any] = {"label": row.label, "engine": engine, "antialias": antialias}
            with _noting(result), contextlib.closing(Contestant("ours", _task(row, data, settings), log)) as contestant:
                result["microseconds"] = contestant.ask("split", seconds=settings.seconds)
            found.append(result)
    return found


def _task(row: Row, data: Data, settings: Settings) -> Task:
    return Task(data.memory, data.stored, row.cores, settings.size, settings.batch_size, row.engine, row.antialias)


@contextlib.contextmanager
def _noting(result: dict[str, Any]) -> Any:
    """A contestant that is missing or breaks down is named as that in its row, and the others go on."""
    try:
        result["status"] = MEASURED
        yield
    except Absent as error:
        result["status"] = f"not installed ({error})"
    except Failed as error:
        result["status"] = f"failed ({error})"


def about(data: dict[str, Data], settings: Settings, engines: Sequence[str]) -> dict[str, Any]:
    """The conditions: machine, versions, data, settings."""
    return {
        "machine": {
            "cpu": cpu_model(),
            "visible_cores": len(visible_cores()),
            "system": platform.platform(),
            "load_before": os.getloadavg()[0],  # of the last minute: others at work make all of this worthless
        },
        "pinned": PINNED,
        "commit": runtime.git_commit(),
        "versions": runtime.versions() | {f"engine {name}": engine_version(name) for name in engines},
        "data": {
            name: {
                "dataset": f"{d.stored.dataset}:{d.stored.version}",
                "split": d.stored.split,
                "encoding": d.stored.encoding,
                "fingerprint": d.stored.fingerprint,
                "images": len(d.memory),
                "bytes_an_image": sum(len(r.image) for r in d.memory.records) / len(d.memory),
            }
            for name, d in data.items()
        },
        "settings": settings._asdict(),
    }


def check_same(data: dict[str, Data]) -> None:
    """Raises UserError where the variants are not the same images."""
    first = data[ORIGINAL]
    for d in data.values():
        if (len(d.stored), [r.label for r in d.memory.records]) != (len(first.stored), [r.label for r in first.memory.records]):
            raise UserError(
                f"{d.stored.dataset} does not hold the same images as {first.stored.dataset} ({len(d.stored):,} and "
                f"{len(first.stored):,}, or other labels): prepare both from the same files."
            )


def engine_version(name: str) -> str:
    """Of an engine of ours, "" where its package is not installed."""
    try:
        return decode.engine(name).version
    except UserError:
        return ""


def cpu_model() -> str:
    """The processor's name, as the system tells it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()
