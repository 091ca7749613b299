"""The same numbers on 1, 2 and 8 devices, with the state whole or in parts, the batch at once or in parts.

What a run computes follows from its config alone, and the compiled step communicates what it must and no more.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from imagenet_jax import build, checkpoint, hlo, sharding, tree
from imagenet_jax import config as configs
from imagenet_jax import step as steps
from imagenet_jax.data.batches import loader
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError
from imagenet_jax.evaluator import Counts, Evaluator
from imagenet_jax.plan import Plan

CONFIG = configs.plain(configs.resolve(configs.default())) | {
    "model": {"name": "resnet8", "dtype": "float32", "param_dtype": "float32", "settings": {}},
    "image_size": 8,
    "bn_group": 8,
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "weight_decay": 1e-3,
    "no_weight_decay": [r"(^|/)(bias|scale)$"],
    "clip_norm": 1.0,
    "agc": 0.0,
    "learning_rate": 0.1,
    "batch_size": 64,
    "epochs": 50.0,
    "warmup_epochs": 5.0,
    "lr_scaling": "none",
    "lr_batch": 64,
    "schedule": "cosine",
    "ema_decay": 0.9,
    "eval_interval_epochs": 0,
}


def prepare(devices: int, dtype: str, group: int, fsdp: int = 1, accumulate: int = 1, **changes):
    """The mesh, the jitted step, the state's shapes and places, and the function that makes it."""
    config = {**CONFIG, **changes, "bn_group": group}
    config["model"] = {**config["model"], "dtype": dtype, "param_dtype": dtype}
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp)
    model = build.model(config, 10)
    schedule, _ = build.schedule(config, Plan(config, 64))
    abstract = build.abstract_state(model, config, mesh)
    where = jax.tree.map(lambda x: x.sharding, abstract)
    step = jax.jit(
        steps.make_train_step(
            model, build.optimizer(config), schedule, mean=(0.5,) * 3, std=(0.5,) * 3, label_smoothing=0.1,
            average=build.average(config, Plan(config, 64)), schedule_free=config["schedule_free"], sam_rho=config["sam_rho"],
            mixing=build.mixing(config), mesh=mesh, accumulate=accumulate,
        ),
        donate_argnums=0, in_shardings=(where, sharding.batched(mesh)), out_shardings=(where, sharding.replicated(mesh)),
    )  # fmt: skip
    return mesh, step, abstract, jax.jit(build.state_init(model, config), out_shardings=where)


def losses(devices: int, count: int, dtype: str, group: int, **changes) -> np.ndarray:
    """Losses of the first `count` steps on `devices` devices, each step another batch of 64 noise images of 8 x 8."""
    mesh, step, _, init = prepare(devices, dtype, group, **changes)
    return go_on(mesh, step, init(jax.random.key(0)), range(count), dtype)[1]


def go_on(mesh, step, state, numbers, dtype):
    """Take the steps `numbers`; returns the state and the losses."""
    out = []
    for i in numbers:
        rng = np.random.default_rng(i)
        label = rng.integers(0, 10, 64)
        image = rng.integers(0, 128, (64, 8, 8, 3)) + label[:, None, None, None] * 12
        batch = {"image": image.astype(np.uint8), "label": label.astype(np.int32)}
        state, sums = step(state, sharding.put_batch(mesh, batch))
        out.append(float(sums["loss"] / sums["images"]))  # waits: XLA's CPU devices deadlock with many steps in flight on two cores
    assert jax.tree.leaves(state.params)[0].dtype == jnp.dtype(dtype)
    return state, np.asarray(out, np.float64)


@pytest.mark.parametrize("group", [8, 0, pytest.param(32, marks=pytest.mark.slow)])  # in a device; the whole batch; over devices
def test_losses_of_50_steps_in_float64(x64, group):
    one = losses(1, 50, "float64", group)
    assert one[-10:].mean() < one[:10].mean() - 0.5  # it learns, so differences would grow
    for devices in (2, 8):
        np.testing.assert_allclose(losses(devices, 50, "float64", group), one, rtol=0, atol=1e-9)


def test_losses_of_5_steps_in_float32():
    one = losses(1, 5, "float32", 8)
    for devices in (2, 8):
        np.testing.assert_allclose(losses(devices, 5, "float32", 8), one, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_losses_of_5_mixed_steps(x64):
    mixed = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    one = losses(1, 5, "float64", 8, **mixed)
    np.testing.assert_allclose(losses(8, 5, "float64", 8, **mixed), one, rtol=0, atol=1e-6)  # bytes are mixed in float32
    assert np.abs(losses(1, 5, "float64", 8) - one).max() > 0.01


def test_the_group_decides_not_the_devices(x64):
    """The test above could not fail if the group made no difference."""
    assert np.abs(losses(2, 5, "float64", 8) - losses(2, 5, "float64", 32)).max() > 1e-4


@pytest.mark.parametrize("how", [{"fsdp": 4}, {"fsdp": 8}, {"accumulate": 2}, {"fsdp": 4, "accumulate": 2}], ids=str)
@pytest.mark.slow
def test_state_and_batch_in_parts_change_nothing(x64, how):
    group = 4  # a device's 8 rows in 2 parts of one group
    np.testing.assert_allclose(losses(8, 50, "float64", group, **how), losses(1, 50, "float64", group), rtol=0, atol=1e-9)


def test_state_and_batch_in_parts_change_nothing_in_float32():
    one, parts = (losses(n, 5, "float32", 4, **how) for n, how in ((1, {}), (8, {"fsdp": 4, "accumulate": 2})))
    np.testing.assert_allclose(parts, one, rtol=0, atol=1e-5)


FREE = {"ema_decay": 0.0, "schedule_free": 0.9, "schedule": "constant", "optimizer": {"name": "sgd", "momentum": 0.0}}


@pytest.mark.slow
def test_the_gradient_next_door_and_the_average_depend_on_neither_devices_nor_parts():
    one, parts = (
        losses(n, 5, "float32", 4, sam_rho=0.05, **FREE, **how) for n, how in ((1, {}), (8, {"fsdp": 4, "accumulate": 2}))
    )
    np.testing.assert_allclose(parts, one, rtol=0, atol=1e-5)
    assert np.abs(losses(1, 5, "float32", 4, **FREE) - one).max() > 1e-4


@pytest.mark.slow
def test_what_is_dropped_depends_neither_on_devices_nor_on_the_number_of_parts(x64):
    model = {"name": "vit_s_16", "settings": {"patch": 4, "width": 16, "depth": 1, "heads": 2, "dropout": 0.2}}
    a, b, c = (losses(n, 3, "float64", 0, model=model, accumulate=k) for n, k in ((8, 2), (2, 2), (2, 8)))
    np.testing.assert_allclose([b, c], [a, a], rtol=0, atol=1e-6)


def test_parts_are_refused_where_the_whole_batch_is_normalised():
    with pytest.raises(UserError, match="accumulate=2 computes a batch in parts, but bn_group=0"):
        losses(1, 1, "float32", 0, accumulate=2)


@pytest.fixture(scope="module")
def communication():
    """What the compiled step communicates on 8 devices, with the shapes of its state."""

    def of(group: int = 4, **how):
        _, step, abstract, _ = prepare(8, "float32", group, **how)
        batch = {"image": jax.ShapeDtypeStruct((64, 8, 8, 3), "uint8"), "label": jax.ShapeDtypeStruct((64,), "int32")}
        return hlo.collectives(step.lower(abstract, batch).compile().as_text()), abstract

    return of


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_gradient_all_reduce_a_step(communication, accumulate):
    """Gradients, BN statistics, loss and the count of right answers. Nothing inside the loop over parts."""
    found, abstract = communication(accumulate=accumulate)
    assert {c.kind for c in found} == {"all-reduce"}
    assert all(c.entry for c in found)
    assert [c.size for c in found] == [4 * (tree.count(abstract.params) + tree.count(abstract.batch_stats) + 2)]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sharpness_aware_step_sums_each_of_its_two_gradients_once(communication, accumulate):
    found, abstract = communication(accumulate=accumulate, sam_rho=0.05)
    assert {c.kind for c in found} == {"all-reduce"}
    assert all(c.entry for c in found)
    parameters = 4 * tree.count(abstract.params)
    statistics = 4 * tree.count(abstract.batch_stats)  # of one pass
    assert sum(c.size for c in found) == pytest.approx(2 * parameters + statistics, abs=64)
    assert sum(c.size >= parameters for c in found) == 2


def test_statistics_of_the_whole_batch_cost_an_all_reduce_each(communication):
    """The test above could not fail if collectives were not found."""
    assert len(communication(group=0)[0]) > 14


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_parts_of_the_state_are_gathered_once_and_gradients_summed_once(communication, accumulate):
    found, abstract = communication(fsdp=4, accumulate=accumulate)
    sharded = [leaf for leaf in jax.tree.leaves(abstract.params) if not leaf.sharding.is_fully_replicated]
    size = collections.Counter()
    for c in found:
        assert c.entry
        size[c.kind] += c.size
    assert set(size) == {"all-gather", "all-reduce"}
    assert size["all-gather"] == 4 * sum(leaf.size for leaf in sharded)
    floats = 4 * (tree.count(abstract.params) + tree.count(abstract.batch_stats))
    over_data = (
        0 if accumulate > 1 else sum(leaf.size for leaf in sharded)
    )  # a quarter of their bytes: first over 'fsdp', then 'data'
    assert size["all-reduce"] == pytest.approx(floats + over_data, abs=64)  # and a few scalars: loss, norm, count


def test_large_leaves_are_split_and_small_ones_whole():
    _, _, abstract, init = prepare(8, "float32", 4, fsdp=4)
    state = init(jax.random.key(0))
    for (path, leaf), (_, shape) in zip(tree.paths(state), tree.paths(abstract), strict=True):
        assert leaf.sharding == shape.sharding, path
        parts = 4 if leaf.size >= sharding.SHARDED_FROM else 1
        assert leaf.addressable_shards[0].data.size * parts == leaf.size, path
    for params in (state.params, state.ema["params"]):
        assert params["layer3_0"]["conv2"]["kernel"].sharding.spec == P(None, None, None, "fsdp")


def test_the_longest_axis_that_divides_is_split():
    mesh = sharding.make_mesh(jax.devices()[:8], 4)
    for shape, spec in {
        (3, 3, 64, 128): P(None, None, None, "fsdp"),
        (512, 130): P("fsdp"),  # 130 does not divide
        (256, 256): P(None, "fsdp"),
        (129, 129): P(),
        (64, 64): P(),  # small
    }.items():
        assert sharding.of_state(mesh, jax.ShapeDtypeStruct(shape, "float32")).spec == spec, shape


def test_an_axis_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(UserError, match=r"mesh.fsdp=3 does not divide 8 devices. Use one of 1, 2, 4, 8"):
        sharding.make_mesh(jax.devices()[:8], 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_run_goes_on_on_another_topology(x64, tmp_path, dtype):
    """Saved by one device, gone on with on 8 in groups of 4, saved, and gone on with on 2."""
    count, tolerance = (50, 1e-9) if dtype == "float64" else (5, 1e-5)
    with jax.enable_x64(dtype == "float64"):
        want = losses(1, 2 * count + 4, dtype, 4)
        got = []
        for begin, end, devices, fsdp in ((0, 4, 1, 1), (4, 4 + count, 8, 4), (4 + count, 4 + 2 * count, 2, 1)):
            mesh, step, abstract, init = prepare(devices, dtype, 4, fsdp=fsdp)
            with checkpoint.Checkpoints(tmp_path) as kept:
                state = kept.restore_newest(abstract) if begin else init(jax.random.key(0))
                state, out = go_on(mesh, step, state, range(begin, end), dtype)
                kept.save(state)
                kept.wait()
            got += list(out)
    np.testing.assert_allclose(got[: 4 + count], want[: 4 + count], rtol=0, atol=tolerance)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * (1 if dtype == "float64" else 10))


@pytest.fixture(scope="module")
def evaluated(tiny_data):
    """Counts on the 21 validation images, by (devices, batch size)."""
    source = open_source(tiny_data, "tiny", "validation")
    pixels = loader.Pixels(decode.engine("opencv"), 16, 1.0, True)
    model = build.model(CONFIG, 4)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)), train=False)

    def count(devices: int, batch_size: int) -> Counts:
        mesh = sharding.make_mesh(jax.devices()[:devices])
        view = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        evaluator = Evaluator(model, source, pixels, mesh, batch_size=batch_size, **view)
        return evaluator.count({"raw": sharding.replicate(mesh, variables)}, logits=True)["raw"]

    return count


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 1), (1, 7), (2, 8), (8, 8), (8, 64)])
def test_evaluation_counts_every_image_once_on_any_devices_and_batch(evaluated, devices, batch_size):
    reference, other = evaluated(1, 21), evaluated(devices, batch_size)
    assert other.images == 21
    assert (other.top1, other.top5) == (reference.top1, reference.top5)
    np.testing.assert_array_equal(other.confusion, reference.confusion)
    assert other.confusion.sum() == 21
    assert other.loss == pytest.approx(reference.loss, abs=1e-6)
    np.testing.assert_array_equal(other.labels, reference.labels)
    np.testing.assert_allclose(other.logits, reference.logits, atol=1e-5)
    assert other.correct.mean() == other.top1
