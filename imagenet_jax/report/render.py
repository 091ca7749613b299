"""Put one page together from the files of one or more runs, or folders of weights, and write it into the first one's directory.

Class names, file names and settings come from outside: the template escapes everything, and links are relative and quoted.
"""

import functools
import importlib.resources
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2

from imagenet_jax.errors import UserError
from imagenet_jax.report import categories, plots, suites, tables
from imagenet_jax.report.curves import Curve, draw_curves, draw_reliability
from imagenet_jax.report.read import Evaluation, Run, labelled, read_run, read_runs

CELLS = 20  # classes up to which the confusion matrix is a table with its counts; above, a picture
WORST_FIRST = 21  # classes from which the per-class table starts with the lowest F1
CONFUSION_TITLE = "Confusion matrix"
STEMS = ("loss", "train-loss", "eval-loss", "top1", "top5", "learning-rate", "throughput", "waiting", "confusion", "reliability")


def write_report(workdirs: Sequence[pathlib.Path]) -> pathlib.Path:
    """Write `report.html` and `report/*.png` into the first of the run directories; returns the path of the page.

    Several runs make a comparison, followed by the details of the first. Where one is a folder of weights, which has no training to
    show, the page holds what was evaluated alone. Raises `UserError` where a directory is neither, or cannot be written to.
    """
    if any((path / "weights.json").is_file() for path in workdirs):
        first, template = workdirs[0], "weights.html"
        sides = read_sides(workdirs)
        context = functools.partial(_weights_context, sides)
    else:
        runs = read_runs(workdirs)
        first, template = runs[0].path, "template.html"
        context = functools.partial(_context, runs)
    page = first / "report.html"
    try:
        folder = first / "report"
        folder.mkdir(exist_ok=True)
        for stem in STEMS:
            for theme in plots.THEMES:  # of an earlier report, which may have had more to draw
                folder.joinpath(f"{stem}-{theme.name}.png").unlink(missing_ok=True)
        html = _template(template).render(context(folder))
        new = page.with_name("report.html.new")
        # A file name that is not valid UTF-8 arrives as lone surrogates, which only a character reference can carry.
        new.write_bytes(html.encode("utf-8", "xmlcharrefreplace"))
        os.replace(new, page)
    except OSError as error:
        raise UserError(f"The report cannot be written to {first}: {error}.") from error
    return page


def _template(name: str) -> jinja2.Template:
    files = importlib.resources.files("imagenet_jax.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files.joinpath(name).read_text("utf-8")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    formats = (
        tables.percent, tables.number, tables.fixed, tables.count, tables.scaled, tables.duration, tables.shown, tables.between,
        tables.points, tables.points_between,
    )  # fmt: skip
    environment.filters |= {f.__name__: f for f in formats}
    environment.globals |= {"interval": tables.interval, "weight_names": tables.NAMES, "dash": tables.DASH}
    return environment.get_template(name)


def _context(runs: list[Run], folder: pathlib.Path) -> dict[str, Any]:
    run = runs[0]
    sides = [_side(r) for r in runs]
    return {
        "title": run.name if len(runs) == 1 else f"{len(runs)} runs compared",
        "runs": [_summary(r) for r in runs],
        "info": run.info,
        "curves": draw_curves(runs, folder),
        "comparison": _comparison(runs) if len(runs) > 1 else None,
        "sides": suites.side_by_side(sides),
        "suite": _suite(sides[0]) if (run.path / "suite").is_dir() else [],  # else the results say it all
        "calibration": _calibration(tables.main_evaluation(run), folder, "reliability"),
        "detail": _detail(run, folder),
        "config": [(key, tables.shown(value)) for key, value in tables.flatten(run.info["config"]).items()],
        "provenance": _provenance(run),
    }


def read_sides(folders: Sequence[pathlib.Path]) -> list[suites.Side]:
    """Runs and folders of weights, in the order given. Raises `UserError` for a directory that is neither, or was not evaluated."""
    sides = []
    for path, name in labelled(folders):
        if (path / "weights.json").is_file():
            sides.append(suites.read_weights(path, name))
        else:
            sides.append(_side(read_run(path, name)))
    return sides


def _side(run: Run) -> suites.Side:
    return suites.Side(
        run.name, run.info["model"], suites.read_rows(run.path, run.evaluations, run.notes), run.evaluations, run.notes
    )


def _weights_context(sides: list[suites.Side], folder: pathlib.Path) -> dict[str, Any]:
    models = []
    for i, side in enumerate(sides):
        evaluation = side.evaluations[0] if side.evaluations else None
        calibration = _calibration(evaluation, folder, f"reliability-{i}")
        shown = {
            "name": side.name,
            "model": side.model,
            "suite": _suite(side),
            "calibration": calibration,
            "categories": None,
            "worst": [],
        }
        if evaluation:
            weights = tables.shown_weights(evaluation)
            shown["categories"] = categories.tree(evaluation, weights)
            if i == 0:  # pictures lie beside the page
                shown["worst"] = categories.worst(folder.parent, evaluation, weights)
        models.append(shown)
    return {
        "title": sides[0].name if len(sides) == 1 else f"{len(sides)} models compared",
        "runs": sides,
        "sides": suites.side_by_side(sides),
        "models": models,
        "notes": [f"{side.name}: {note}" for side in sides for note in side.notes],
    }


def _suite(side: suites.Side) -> list[dict[str, Any]]:
    """The rows of a side with every key that the table shows."""
    absent = dict.fromkeys(("published_images", "top5", "loss", "macro", "weighted", "calibration", "corruption_error"))
    below = {"macro_f1": ("macro", "f1"), "weighted_f1": ("weighted", "f1"), "ece": ("calibration", "ece")}
    rows = [absent | row.content for row in side.rows]
    return [row | {name: (row[key] or {}).get(inner) for name, (key, inner) in below.items()} for row in rows]


def _calibration(evaluation: Evaluation | None, folder: pathlib.Path, stem: str) -> dict[str, Any] | None:
    """What an evaluation says of the weights that are shown; None where it kept no logits."""
    weights = tables.shown_weights(evaluation) if evaluation else "raw"
    found = evaluation and evaluation.content[weights].get("calibration")
    if not evaluation or not found:
        return None
    t = found["temperature"]
    what = f"{evaluation.content['dataset']}, {evaluation.content['split']}, {tables.NAMES[weights]} weights"
    rows = [("all", found), *([("half, as it is", t["before"]), ("half, with the temperature", t["after"])] if t else [])]
    return {"what": what, "temperature": t, "rows": rows, "curve": draw_reliability(found, folder, stem)}


def _summary(run: Run) -> dict[str, Any]:
    done, total = tables.steps_done(run), run.info["steps"]["total"]
    return {
        "name": run.name,
        "info": run.info,
        "results": tables.results(run),
        "final": tables.final(run),
        "done": done,
        "total": total,
        "finished": done >= total,
        "wall_time": tables.wall_time(run),
        "speed": tables.speed(run),
        "device": tables.device(run),
        "kind": tables.kind(run),
        "notes": run.notes,
    }


def _detail(run: Run, folder: pathlib.Path) -> dict[str, Any] | None:
    evaluation = tables.main_evaluation(run)
    if evaluation is None:
        return None
    content, weights = evaluation.content, tables.shown_weights(evaluation)
    worst_first = len(content["classes"]) >= WORST_FIRST
    return {
        "evaluation": content,
        "weights": weights,
        "file": evaluation.path.relative_to(run.path).as_posix(),
        "confusion": _confusion(evaluation, weights, folder),
        "classes": tables.class_rows(evaluation, weights, worst_first),
        "worst_first": worst_first,
        "macro": content[weights]["macro"],
        "categories": categories.tree(evaluation, weights),
        "worst": categories.worst(run.path, evaluation, weights),
        "samples": tables.sample_cards(run, evaluation, weights),
        "pixelated": run.info["preprocessing"]["image_size"] <= 64,
    }


def _confusion(evaluation: Evaluation, weights: str, folder: pathlib.Path) -> dict[str, Any] | None:
    matrix, names = evaluation.confusion.get(weights), evaluation.content["classes"]
    if matrix is None:
        return None
    total, right = int(matrix.sum()), int(matrix.trace())
    pairs = tables.confused_pairs(matrix, names, 10 if len(names) <= CELLS else 20)
    confusion = {"names": names, "pairs": pairs, "wrong": total - right, "total": total, "rows": None, "curve": None}
    if len(names) <= CELLS:
        largest = max((pair["count"] for pair in pairs), default=1)
        confusion["rows"] = [
            # Shades: a right count against its class, a wrong one against the largest wrong one.
            [(int(n), n / max(row.sum(), 1) if i == j else (n / largest) ** 0.5, i == j) for j, n in enumerate(row)]
            for i, row in enumerate(matrix)
        ]
    else:
        picture = plots.save_confusion(matrix, names, folder, "confusion")
        most = "; ".join(f"{p['true']} taken for {p['predicted']} {p['count']} times" for p in pairs[:3])
        alt = f"{CONFUSION_TITLE} of {len(names)} classes: {right} of {total} images on the diagonal. Most confused: {most}."
        block = -(-len(names) // plots.DOTS)
        note = "Each row is a true class, each column a predicted one. The colour scale is stretched towards 0."
        if block > 1:
            note += f" One dot is the largest of {block} by {block} cells."
        confusion["curve"] = Curve(CONFUSION_TITLE, note, alt, picture)
    return confusion


def _comparison(runs: list[Run]) -> dict[str, Any]:
    """What differs between runs, and the sentences that say where their results cannot be compared as they stand."""
    circumstances = ("dataset", "preprocessing", "model", "steps", "versions", "git_commit", "devices")
    datasets = [run.info["dataset"] for run in runs]
    warnings = []
    if len({(d["name"], d["eval_split"], d["fingerprint"].get("eval"), d["eval_images"]) for d in datasets}) > 1:
        warnings.append("These runs were not evaluated on the same images: their accuracies do not compare directly.")
    elif tables.differences([run.info["preprocessing"] for run in runs]):
        warnings.append("The images were decoded or preprocessed differently: small differences may come from that.")
    if len({result.step for run in runs for result in tables.final(run).values()}) > 1:
        warnings.append("The results were taken after different numbers of steps.")
    return {
        "config": tables.differences([run.info["config"] for run in runs]),
        "circumstances": tables.differences([{key: run.info[key] for key in circumstances} for run in runs]),
        "warnings": warnings,
    }


def _provenance(run: Run) -> list[tuple[str, str]]:
    """Where the numbers come from: (heading, text) pairs."""
    info, data, init = run.info, run.info["dataset"], run.info.get("init")
    decoder = info["preprocessing"]["decoder"]
    rows = [
        ("Started", info["started"]),
        ("Versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())),
        ("Git commit", info["git_commit"] or "not known (not a git checkout)"),
        ("Devices", f"{tables.device(run)}; platform {info['devices']['platform']}"),
        ("Data set", f"{data['name']} {data['version']}"),
        ("Training images", f"{tables.count(data['train_images'])} ({data['train_split']})"),
        ("Evaluation images", f"{tables.count(data['eval_images'])} ({data['eval_split']})"),
        *((f"Fingerprint, {split}", str(value)) for split, value in data["fingerprint"].items()),
        ("Decoder", f"{decoder['name']} {decoder['version']}"),
        *([("Began from", f"{info['config']['init_from']}, head {init['head']}, sha256 {init['sha256']}")] if init else []),
        *_settings("Encoded anew", {k: v for k, v in info["dataset"].get("encoding", {}).items() if v}),
        *_settings("Preprocessing", {k: v for k, v in info["preprocessing"].items() if k != "decoder"}),
    ]
    for evaluation in run.evaluations:
        e = evaluation.content
        used = e["decoder"]
        text = f"step {tables.count(e['step'])}, {tables.count(e['images'])} images, decoder {used['name']} {used['version']}"
        if used != decoder:
            text += ", not the decoder of the training"
        rows.append((f"Evaluation {e['dataset']}, {e['split']}", text))
    return rows


def _settings(heading: str, tree: dict[str, Any]) -> list[tuple[str, str]]:
    return [(heading, "; ".join(f"{key} {tables.shown(value)}" for key, value in tables.flatten(tree).items()))] if tree else []
