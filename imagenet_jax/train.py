"""One training run, from config and workdir to checkpoints, metrics, evaluation and report. Reads from top to bottom."""

import contextlib
import datetime
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from imagenet_jax import build, cli, distill, distributed, finetune, logs, loop, moments, record, runtime, sharding, validate
from imagenet_jax import config as configs
from imagenet_jax import evaluate as evaluation
from imagenet_jax import step as steps
from imagenet_jax.checkpoint import Checkpoints
from imagenet_jax.data.augmentation import augment
from imagenet_jax.data.batches import loader
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading import sources
from imagenet_jax.data.reading.cache import cached
from imagenet_jax.data.storage.locate import Place
from imagenet_jax.evaluator import Counts, Evaluator
from imagenet_jax.ops import losses
from imagenet_jax.plan import Plan
from imagenet_jax.report import write_report
from imagenet_jax.state import TrainState

STARVED = 0.5  # share of the time spent on waiting for data, above which it is said what helps


def train(
    config: configs.Config,
    workdir: pathlib.Path,
    *,
    data_dir: Place,
    stop_after: int | None = None,
    dry_run: bool = False,
    devices: Sequence[Any] | None = None,
) -> int:
    """Train, or go on where `workdir` stopped; returns the command's exit code (cli.py).

    `stop_after` ends the run early at that step, saved, without changing its schedule. `dry_run` prints and writes nothing.
    """
    # ---- mesh, and the weights to begin from, which say what the config leaves open
    mesh = sharding.make_mesh(devices, config.mesh.fsdp)
    origin = finetune.find(config, workdir, mesh)
    config = finetune.resolve(config, origin)
    validate.config(config, devices=mesh.size)
    c = configs.plain(config)  # from here on plain dicts, as config.json holds them

    # ---- data and step counts
    train_data, eval_data = open_data(c, data_dir)
    plan = Plan(c, len(train_data))
    augmentation = augment.chain(c["augment"])
    engine = decode.engine(c["data"]["decoder"], c["interpolation"])
    pixels = loader.Pixels(engine, c["image_size"], c["crop_ratio"], c["antialias"], c["data"]["max_pixels"])

    # ---- model, optimizer, learning rate
    model = build.model(c, len(train_data.classes))
    optimizer = build.optimizer(c)
    schedule, peak = build.schedule(c, plan)

    # ---- shapes, shardings, jitted steps
    abstract = build.abstract_state(model, c, mesh)
    where = jax.tree.map(lambda x: x.sharding, abstract)
    teacher = distill.find(c, train_data.classes, mesh)
    teaching = (teacher.variables,) if teacher else ()
    objective = build.loss(c, train_data.classes)
    train_step = jitted_step(c, model, optimizer, schedule, objective, plan, abstract, mesh, teacher)
    init = finetune.describe(origin, train_data.classes)
    run = record.describe(c, model, abstract, train_data, eval_data, pixels, plan, data_dir, init, teacher and teacher.said)
    code, flags = (run["versions"], run["git_commit"]), (stop_after, dry_run)
    same = {"config": c, "weights": [init, run["distill"]], "data": run["dataset"], "pixels": run["preprocessing"]}
    distributed.check_same(flags=flags, code=code, **same)
    print(record.summary(run, peak, mesh), flush=True)

    if dry_run:
        print(record.memory(train_step, abstract, c, mesh, *teaching))
        return cli.FINISHED
    evaluator = Evaluator(
        model, eval_data, pixels, mesh, batch_size=c["eval_batch_size"] or c["batch_size"],
        mean=tuple(c["mean"]), std=tuple(c["std"]), flip=c["eval_flip"], translate=c["eval_translate"], hosting=hosting(c),
    )  # fmt: skip

    # ---- start: restore, else fresh
    with contextlib.ExitStack() as stack:
        distributed.main_first(lambda: stack.enter_context(runtime.locked(workdir)))
        distributed.main_first(lambda: record.freeze(workdir, run))
        distributed.check_shared(workdir)
        checkpoints = stack.enter_context(Checkpoints(workdir, c["keep_checkpoints"], c["keep_every"]))
        signals = stack.enter_context(runtime.StopSignal())
        watchdog = stack.enter_context(runtime.Watchdog(c["stall_seconds"]))
        agreed = distributed.Stop(signals, mesh)
        start = distributed.from_main(checkpoints.latest() or 0)
        if start == plan.total and distributed.from_main(finished(workdir, run, start)):
            print(f"{workdir} is finished: step {start:,} of {plan.total:,}. Report: {workdir / 'report.html'}")
            return cli.FINISHED
        if start:
            state = checkpoints.restore_newest(abstract)
            start = int(state.step)
            print(f"Resuming {workdir} at step {start:,}.", flush=True)
        else:
            with loop.out_of_memory_hint(c["batch_size"], plan.multiple(mesh.size)):
                make, given = finetune.start(origin, init, model, c, abstract, functools.partial(loader.first, train_data, pixels))
                state = jax.jit(make, out_shardings=where)(given)

        # ---- fit
        stop = min(plan.total, stop_after) if stop_after is not None else plan.total
        views = training_views(c, plan, train_data, pixels, augmentation)
        host, settle = views(start=start, stop=stop), moments.estimator(model, c, mesh, abstract, views)
        keep = ("image", "label")
        stopping = functools.partial(stop_asked, watchdog, agreed)
        silent = not runtime.is_main_process()
        with logs.Journal(workdir, start, silent=silent) as journal, logs.Console(start, stop, plan.total) as console:
            watched = log_substitutes(journal, console, train_data, host, start)
            batches = loop.ahead(watched, lambda b: sharding.put_batch(mesh, {k: b[k] for k in keep}))
            evaluate = functools.partial(log_evaluation, journal, console, plan, evaluator, stopping)
            hooks = loop.Hooks(
                log=functools.partial(log_window, journal, console, plan), settle=settle, save=checkpoints.save,
                evaluate=evaluate, tick=console.tick, stopping=stopping,
            )  # fmt: skip
            if start in plan.eval_steps:  # a stop may have cut this evaluation off
                evaluate(start, state)
            with contextlib.closing(host), loop.out_of_memory_hint(c["batch_size"], plan.multiple(mesh.size)):
                state = loop.fit(
                    state, lambda state, batch: train_step(state, batch, *teaching), batches, hooks, start=start, stop=stop,
                    log_interval=c["log_interval"], save_interval=c["checkpoint_interval"], eval_steps=plan.eval_steps,
                    max_skipped=c["max_skipped"],
                )  # fmt: skip
            done = int(state.step)
            if agreed.signal is None or done == plan.total:  # a signal is in a hurry, and the next evaluation settles it
                state = settle(state)
            checkpoints.save(state)
            checkpoints.wait()

            # ---- final evaluation and report
            evaluated = False
            if done == plan.total and (counts := evaluate(done, state, logits=True)):
                evaluation.write(workdir, evaluator, weights_of(state), counts, run, done)
                evaluated = True
        if agreed.signal is not None and not evaluated:
            print(f"Stopped by {agreed.signal.name} at step {done:,}, saved. The same command goes on from there.")
            return 128 + agreed.signal
    if done < plan.total:
        print(f"Stopped at step {done:,} of {plan.total:,} as --stop_after says, saved.")
    else:
        distributed.main_first(lambda: print(f"Report: {write_report([workdir])}"))
    return cli.FINISHED


def jitted_step(
    c: dict[str, Any], model: Any, optimizer: Any, schedule: Any, loss: losses.Loss, plan: Plan, abstract: TrainState, mesh: Mesh,
    teacher: distill.Teacher | None = None,
) -> jax.stages.Wrapped:  # fmt: skip
    """The training step of a plain config on a mesh, for a state that lies as `abstract` says, which it takes over (donation).

    With a teacher, its variables are the third argument.
    """
    where = jax.tree.map(lambda x: x.sharding, abstract)
    step = steps.make_train_step(
        model, optimizer, schedule, mean=c["mean"], std=c["std"], label_smoothing=build.label_smoothing(c), loss=loss,
        average=build.average(c, plan), schedule_free=c["schedule_free"], sam_rho=c["sam_rho"],
        taught=teacher and teacher.objective, mixing=build.mixing(c), frozen=c["frozen"], seed=c["seed"], mesh=mesh,
        accumulate=c["accumulate"],
    )  # fmt: skip
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)
    given = (where, split, whole) if teacher else (where, split)
    return jax.jit(step, donate_argnums=0, in_shardings=given, out_shardings=(where, whole))


def training_views(
    c: dict[str, Any], plan: Plan, source: sources.Source, pixels: loader.Pixels, augmentation: augment.Chain
) -> Callable[..., Generator[loader.Batch]]:
    """(start=, stop=) -> this process's share of the training batches of these steps."""
    return functools.partial(
        loader.train_batches, source, pixels, augmentation, seed=c["seed"], batch_size=c["batch_size"],
        rows=loader.Rows(*sharding.rows_of_process(c["batch_size"])), repeats=c["repeats"], broken=c["data"]["broken"],
        sizes=plan.sizes(c["train_sizes"]), **hosting(c),
    )  # fmt: skip


def hosting(c: dict[str, Any]) -> dict[str, int]:
    """How many threads and processes decode, and how far ahead."""
    return {key: c["data"][key] for key in ("threads", "processes", "prefetch")}


def open_data(c: dict[str, Any], data_dir: Place) -> tuple[sources.Source, ...]:
    """The training and the evaluation split. The embedded digits are prepared here if they are absent."""
    if c["dataset"] == "digits" and isinstance(data_dir, pathlib.Path):
        distributed.main_first(functools.partial(prepare_digits, data_dir))
        prepare_digits(data_dir)  # where each host has a data_dir of its own
    crc = c["data"]["check_crc"]
    splits = (c["train_split"], c["eval_split"])
    opened = tuple(sources.open_source(data_dir, c["dataset"], split, check_crc=crc) for split in splits)
    return cached(*opened, processes=max(1, c["data"]["processes"])) if c["data"]["cache"] else opened


def prepare_digits(data_dir: pathlib.Path) -> None:
    """Prepare the embedded data set where it is absent."""
    if not sources.prepared_versions(data_dir / "digits"):
        from imagenet_jax.data.preparing import prepare

        print(f"Preparing the embedded data set, handwritten digits, in {data_dir}.", flush=True)
        prepare.prepare_digits(data_dir)


def stop_asked(watchdog: runtime.Watchdog, stop: distributed.Stop) -> bool:
    """Whether a signal came. Asked after every step and every evaluation batch, which the watchdog waits for."""
    watchdog.beat()
    return stop()


def finished(workdir: pathlib.Path, run: dict[str, Any], step: int) -> bool:
    """Whether the final evaluation and the report of `step` are written."""
    data = run["dataset"]
    result = evaluation.result_path(workdir, data["name"], data["eval_split"])
    return (workdir / "report.html").exists() and (logs.read_json(result) or {}).get("step") == step


def log_window(journal: logs.Journal, console: logs.Console, plan: Plan, window: loop.Window) -> None:
    """Print and record what the loop saw since the last log line; of all processes' waits for data, the longest.

    All processes come here after the same steps, since the numbers that decide it are the same in all.
    """
    if window.skipped:
        console.say(f"Loss or gradient not finite at step {', '.join(map(str, window.skipped))}: left out, as max_skipped allows.")
    waits = distributed.of_all(window.data_wait)
    wait, slowest = max(waits), waits.index(max(waits))
    whose = f" (process {slowest})" if len(waits) > 1 else ""
    left = datetime.timedelta(seconds=round((plan.total - window.step) * window.seconds_a_step))
    console.say(
        f"step {window.step:>{len(str(plan.total))}}/{plan.total}  epoch {plan.epoch(window.step):6.2f}  loss {window.loss:.4f}  "
        f"top-1 {window.top1:6.2%}  lr {window.learning_rate:.4g}  {window.images_per_second:,.0f} img/s  "
        f"data wait {wait:4.0%}{whose}  ETA {left}"
    )
    if wait > STARVED:
        console.once(
            f"More than half of the time goes into waiting for data{whose}. What helps: a faster or nearer disk, more data.threads "
            "or data.processes, data.decoder=numba, restart markers, images stored smaller (README: How fast is the input)."
        )
    journal.write(
        {
            "kind": "train",
            "step": window.step,
            "epoch": plan.epoch(window.step),
            "loss": window.loss,
            "top1": window.top1,
            "learning_rate": window.learning_rate,
            "images_per_second": window.images_per_second,
            "data_wait": wait,
            **({"data_wait_process": slowest} if len(waits) > 1 else {}),
            "skipped": len(window.skipped),
            "time": time.time(),
        }
    )


def log_substitutes(
    journal: logs.Journal, console: logs.Console, source: sources.Source, batches: Iterator[loader.Batch], start: int
) -> Iterator[loader.Batch]:
    """Pass the batches on; record, for each step that has some, which examples stand in the place of those that do not decode."""
    for step, batch in enumerate(batches, start):
        replaced = batch["instead_of"] >= 0
        if replaced.any():
            due, used = batch["instead_of"][replaced].tolist(), batch["id"][replaced].tolist()
            pairs = ", ".join(f"{a} by {b}" for a, b in zip(due, used, strict=True))
            said = f"step {step + 1}: of {source.dataset} {source.split}, examples that do not decode were replaced: {pairs}"
            console.say(said)
            if not runtime.is_main_process():  # whose journal holds only its own
                print(f"process {jax.process_index()}, {said}", file=sys.stderr, flush=True)
            journal.write({"kind": "substitutes", "step": step + 1, "due": due, "used": used, "time": time.time()})
        yield batch


def log_evaluation(
    journal: logs.Journal,
    console: logs.Console,
    plan: Plan,
    evaluator: Evaluator,
    stopping: Callable[[], bool],
    step: int,
    state: Any,
    logits: bool = False,
) -> dict[str, Counts] | None:
    """Evaluate all weights of the state, print and record; None where `stopping` says so before the end."""
    with loop.out_of_memory_hint(evaluator.batch_size, evaluator.mesh.size, "--config.eval_batch_size"):
        counts = evaluator.count(weights_of(state), logits=logits, stopping=stopping, progress=True)
    for name, result in (counts or {}).items():
        console.say(
            f"step {step:>{len(str(plan.total))}}/{plan.total}  {evaluator.source.split} {name}: {result.images:,} images  "
            f"loss {result.loss:.4f}  top-1 {result.top1:.2%}  top-5 {result.top5:.2%}{record.views(evaluator.views)}"
        )
        journal.write(
            {
                "kind": "eval",
                "step": step,
                "epoch": plan.epoch(step),
                "split": evaluator.source.split,
                "weights": name,
                "images": result.images,
                "loss": result.loss,
                "top1": result.top1,
                "top5": result.top5,
                "time": time.time(),
            }
        )
    return counts


def weights_of(state: Any) -> dict[str, Any]:
    """All sets of weights that the state holds."""
    return {name: state.variables(name) for name in (("raw", "ema") if state.ema else ("raw",))}
