"""What the page asks, answered: searches, pictures and explanations. No HTTP here; everything is named by numbers and short keys.

Pictures come from the data that the index was made of, by their number there, decoded and encoded anew. Uploaded ones live in
memory, as the model sees them, until there are too many.
"""

import collections
import hashlib
import io
import json
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from PIL import Image

from imagenet_jax import explain
from imagenet_jax.data.batches import photos
from imagenet_jax.data.reading.records import Source
from imagenet_jax.embedder import Embedder, Query
from imagenet_jax.errors import UserError
from imagenet_jax.retrieval import words
from imagenet_jax.retrieval.store import Index, describe_top
from imagenet_jax.search import Result, search

RESULTS = 60
LEAST = 0.05  # of a word's probability: what the model thinks less likely only buries the rest
UPLOADS = 64  # pictures kept
LONGEST_WORD = 100


class Asked(NamedTuple):
    """A query, as it stands in the page's URL. `item`: a row of the index; `picture`: the key of an uploaded one; `sense` and
    `category`: keys of words.sense_of."""

    word: str = ""
    sense: str = ""
    category: str = ""
    item: int | None = None
    picture: str = ""


def parse(query: Mapping[str, str]) -> Asked:
    """From the parameters of a URL. Raises UserError for unknown ones and numbers that are none."""
    if unknown := set(query) - set(Asked._fields):
        raise UserError(f"Unknown parameters: {', '.join(sorted(unknown))}.")
    if any(len(value) > LONGEST_WORD for value in query.values()):
        raise UserError(f"A word has more than {LONGEST_WORD} letters.")
    item = query.get("item", "")
    if item and not (item.isascii() and item.isdigit()):
        raise UserError(f"item={item!r} is no number.")
    return Asked(**{**query, "item": int(item) if item else None})


class Site:
    """All methods may be called from any thread; the model works for one at a time."""

    def __init__(self, index: Index, source: Source, embedder: Embedder):
        self.index, self._source, self._embedder = index, source, embedder
        self._lock, self._uploads = threading.Lock(), collections.OrderedDict[str, Query]()
        self._paths = words.paths_of(index.classes)
        self.key = hashlib.sha256(json.dumps(index.manifest, sort_keys=True).encode()).hexdigest()[:12]  # of this index
        loaded = embedder.loaded
        self._heat = jax.jit(explain.make_heat_step(loaded.model, mean=loaded.mean, std=loaded.std))

    def search(self, asked: Asked) -> dict[str, Any]:
        """Results, their categories with counts, the senses of the word, and what is known of the picture that was asked with."""
        names = self.index.classes
        senses = words.senses(asked.word, names) if asked.word else []
        chosen = [s for s in senses if asked.sense in ("", s.key)]
        if senses and not chosen:
            raise UserError(f"{asked.sense!r} is no sense of {asked.word!r}.")
        classes = {label for sense in chosen for label in sense.classes} if senses else None
        if asked.category:
            within = set(words.sense_of(asked.category, names).classes)
            classes = within if classes is None else classes & within
        found = self._found(asked, classes)
        items = self.index.describe(found.rows)
        results = [
            {"row": item["row"], "name": item["name"], "score": float(score), **self._named(item["top"][0])}
            for item, score in zip(items, found.scores, strict=True)
        ]
        return {
            "key": self.key,
            "total": len(self.index),
            "measure": found.measure,
            "most": RESULTS,
            "least": LEAST,
            "senses": [{"key": s.key, "path": s.path, "count": len(s.classes), "chosen": s.key == asked.sense} for s in senses],
            "results": results,
            "facets": words.facets([item["top"][0]["index"] for item in items], names),
            "category": words.sense_of(asked.category, names).path[-1] if asked.category else None,
            "picture": self._picture(asked),
        }

    def _found(self, asked: Asked, classes: set[int] | None) -> Result:
        """Up to RESULTS rows, of `classes` and most like the picture; where neither is asked for, from all over the index."""
        vector = self._vector(asked)
        if vector is None and classes is None:
            rows = np.linspace(0, len(self.index) - 1, min(RESULTS, len(self.index))).astype(np.int64)
            return Result(rows, np.zeros(len(rows), np.float32), "")
        with self._lock:
            found = search(self.index, RESULTS + 1, vector=vector, classes=None if classes is None else sorted(classes))
        itself = -1 if asked.item is None else asked.item
        wanted = found.scores >= LEAST if found.measure == "probability" else found.rows != itself
        return found._replace(rows=found.rows[wanted][:RESULTS], scores=found.scores[wanted][:RESULTS])

    def add(self, data: bytes) -> str:
        """Take a picture to search with; returns its key. Raises UserError where it does not decode."""
        key = hashlib.sha256(data).hexdigest()[:16]
        with self._lock:
            if key not in self._uploads:
                self._uploads[key] = self._embedder.one(data)
            self._uploads.move_to_end(key)
            while len(self._uploads) > UPLOADS:
                self._uploads.popitem(last=False)
        return key

    def image(self, asked: Asked) -> bytes:
        """A picture as the model sees it, a JPEG."""
        return _encoded(self._square(asked), "JPEG")

    def heat(self, asked: Asked, label: int) -> bytes:
        """Where the model looks for class `label` in a picture: a PNG to lay over it, more opaque where it looks more."""
        if not 0 <= label < len(self.index.classes):
            raise UserError(f"There is no class {label}.")
        square = self._square(asked)
        with self._lock:
            heat = np.asarray(self._heat(self._embedder.variables, square[None], label))
        heat = cv2.resize(heat.astype(np.float32), square.shape[:2], interpolation=cv2.INTER_CUBIC).clip(0, 1)
        colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
        return _encoded(np.dstack([colours, (200 * heat).astype(np.uint8)]), "PNG")

    def _vector(self, asked: Asked) -> np.ndarray | None:
        if asked.picture:
            return self._uploaded(asked.picture).vector
        return None if asked.item is None else self.index.vectors([self._row(asked.item)])[0]

    def _picture(self, asked: Asked) -> dict[str, Any] | None:
        """Name and predictions of the picture that was asked with."""
        if asked.picture:
            classes, probabilities = (part[0] for part in self._uploaded(asked.picture).predictions)
            name, top = "your picture", describe_top(classes, probabilities, self.index.classes)
        elif asked.item is not None:
            (item,) = self.index.describe([self._row(asked.item)])
            name, top = item["name"], item["top"]
        else:
            return None
        return {"name": name, "top": [self._named(one) for one in top]}

    def _named(self, top: dict[str, Any]) -> dict[str, Any]:
        return {"label": top["index"], "class": top["name"], "probability": top["probability"], "path": self._paths[top["index"]]}

    def _uploaded(self, key: str) -> Query:
        with self._lock:
            if key not in self._uploads:
                raise UserError("That picture is not here any more. Choose it again.")
            return self._uploads[key]

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self.index):
            raise UserError(f"There is no picture {row}; there are 0 .. {len(self.index) - 1}.")
        return row

    def _square(self, asked: Asked) -> np.ndarray:
        """As the model sees it, uint8 (size, size, 3)."""
        if asked.picture:
            return self._uploaded(asked.picture).square
        if asked.item is None:
            raise UserError("Say which picture: item or picture.")
        (item,) = self.index.describe([self._row(asked.item)])
        pixels = self._embedder.loaded.pixels
        square = np.zeros((pixels.image_size, pixels.image_size, 3), np.uint8)
        try:
            photos.view(self._source.records[item["id"]].image, pixels, square)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"Picture {asked.item} cannot be read: {error}.") from None
        return square


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=88)
    return buffer.getvalue()
