"""The part of the page about WordNet's categories, and the classes that are known worst."""

import pathlib
from typing import Any

from imagenet_jax.report.read import Evaluation
from imagenet_jax.report.tables import link

ROWS = 500  # of a larger set of classes, categories with less than 1 / ROWS of them are left out
OPEN = 0.1  # share of the classes from which a category is shown unfolded


def tree(evaluation: Evaluation, weights: str) -> dict[str, Any] | None:
    """{"roots": nodes, "absent": why there are none, and what metrics.hierarchy.scores says}; None where there is no hierarchy.

    A node is {"names", "open", "children", and what its category has}. Categories with the same classes, one below the other,
    are one node with all their names; a synset with several parents stands below its first one.
    """
    found = evaluation.content.get("hierarchy") or {}
    if weights not in found:
        return {"absent": found["absent"]} if "absent" in found else None
    classes = len(evaluation.content["classes"])
    nodes: dict[str, dict[str, Any]] = {}
    roots = []
    for row in found[weights]["categories"]:
        if row["classes"] * ROWS < classes:
            continue
        above = nodes.get(row["parent"])
        if above and above["classes"] == row["classes"]:
            above["names"].append(row["name"])
            nodes[row["wnid"]] = above
        else:
            node = {**row, "names": [row["name"]], "open": row["classes"] >= OPEN * classes, "children": []}
            nodes[row["wnid"]] = node
            (above["children"] if above else roots).append(node)
    for node in nodes.values():
        node["children"].sort(key=lambda child: (-child["classes"], child["name"]))
    return {"roots": roots, "absent": "", **{key: value for key, value in found[weights].items() if key != "categories"}}


def worst(folder: pathlib.Path, evaluation: Evaluation, weights: str) -> list[dict[str, Any]]:
    """The worst classes with names, and examples whose `link` is relative to the page in `folder`, None without a thumbnail."""
    names = evaluation.content["classes"]
    return [
        {
            **row,
            "name": names[row["index"]],
            "taken_for": [{**other, "name": names[other["index"]]} for other in row["taken_for"]],
            "examples": [{**e, "link": link(folder, e["thumbnail"]), "name": names[e["taken_for"]]} for e in row["examples"]],
        }
        for row in evaluation.content.get("worst", {}).get(weights, [])
    ]
