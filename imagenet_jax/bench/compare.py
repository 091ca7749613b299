"""The comparisons that `bench input` is made for: which row of ours against which, and what is wanted of their ratio."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from imagenet_jax.bench import stats
from imagenet_jax.bench.input import MARKED, MEASURED, NOTHING, ORIGINAL, SMALL

CLOSE = 43.0  # dB to Pillow over shrinking crops, the median that an antialiased row of ours must reach to be compared as one


class Side(NamedTuple):
    """Rows to choose from: the fastest of those that fit is taken."""

    contestant: str
    data: tuple[str, ...] = (ORIGINAL,)
    antialias: bool | None = None  # None: whatever it does
    cores: int = 1
    same_engine: bool = False  # only the engine that grain decodes with


class Comparison(NamedTuple):
    """`ours` / `theirs` should be `wanted` at least; None: nothing is claimed."""

    name: str
    ours: Side
    theirs: Side
    wanted: float | None


BOTH_WAYS = (ORIGINAL, MARKED)
LINEAR = Side("ours", antialias=False)
SAME = Side("ours", antialias=True, same_engine=True)

COMPARISONS = (
    Comparison("files as they are, not antialiased / tf.data", LINEAR, Side("tf.data"), 1.25),
    Comparison("restart markers, not antialiased / tf.data", Side("ours", (MARKED,), False), Side("tf.data"), 1.5),
    Comparison("antialiased / Pillow processes", Side("ours", BOTH_WAYS, True), Side("Pillow processes"), 1.8),
    Comparison("antialiased / DALI", Side("ours", BOTH_WAYS, True), Side("DALI"), 1.4),
    Comparison("same decode function / grain", SAME, Side("grain, our decode"), 1.0),
    Comparison("nothing decoded / grain", Side(NOTHING), Side("grain, nothing decoded"), 2.0),
    Comparison("two cores / one core", SAME._replace(cores=2), SAME, 1.7),
    Comparison("small files with markers, not antialiased / tf.data", Side("ours", (SMALL,), False), Side("tf.data"), 3.5),
    Comparison("files as they are, not antialiased / OpenCV", LINEAR, Side("OpenCV"), None),
    Comparison("files as they are, not antialiased / simplejpeg", LINEAR, Side("simplejpeg"), None),
    Comparison("files as they are, not antialiased / nvImageCodec", LINEAR, Side("nvImageCodec"), None),
    Comparison("antialiased / FFCV on its own files", Side("ours", BOTH_WAYS, True), Side("FFCV on its own files"), None),
    Comparison(
        "small files with markers, antialiased / FFCV on its own files",
        Side("ours", (SMALL,), True),
        Side("FFCV on its own files"),
        None,
    ),
)


def compare(results: Sequence[dict[str, Any]], same: str) -> list[dict[str, Any]]:
    """Each comparison with its `ratio`, `low` and `high` (90 % interval), or with the reason in `status`.

    `same` is the engine that grain decodes with.
    """
    found = []
    for name, ours, theirs, wanted in COMPARISONS:
        row: dict[str, Any] = {"comparison": name, "wanted": wanted}
        a, b = _choose(results, ours, same), _choose(results, theirs, same)
        if isinstance(a, str) or isinstance(b, str):
            row["status"] = a if isinstance(a, str) else b
        else:
            row |= dict(zip(("ratio", "low", "high"), stats.ratio(a["rates"], b["rates"]), strict=True))
            row |= {"status": MEASURED, "ours": _named(a), "theirs": _named(b)}
        found.append(row)
    return found


def _choose(results: Sequence[dict[str, Any]], side: Side, same: str) -> dict[str, Any] | str:
    """The fastest row that fits, or why there is none."""
    fitting = [
        r
        for r in results
        if r["contestant"] == side.contestant
        and r["data"] in side.data
        and r["antialias"] in ((True, False) if side.antialias is None else (side.antialias,))
        and r["cores"] == side.cores
        and (not side.same_engine or r["engine"] == same)
    ]
    if not fitting:
        given = {r["data"] for r in results}
        return "data set not given" if not given & set(side.data) else f"{side.contestant} on {side.cores} core(s): not run"
    measured = [r for r in fitting if r["status"] == MEASURED]
    if not measured:
        return f"{side.contestant}: {fitting[0]['status']}"
    if side.contestant == "ours" and side.antialias and not side.same_engine:
        measured = [r for r in measured if is_close(r)]
    return max(measured, key=lambda r: r["median"]) if measured else f"no engine of ours reaches {CLOSE:g} dB"


def is_close(row: dict[str, Any]) -> bool:
    """Whether a measured row is close to Pillow on crops that shrink, if there were any."""
    return row["quality"]["shrinking_n"] == 0 or row["quality"]["shrinking_median"] >= CLOSE


def _named(row: dict[str, Any]) -> str:
    resize = "" if not row["pixels"] else ", antialiased" if row["antialias"] else ", not antialiased"
    return f"{row['label']}{resize}"
