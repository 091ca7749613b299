"""Every setting of a training run with its default, and how a config file is found and read; validate.py says what cannot be.

`default()` is the complete list: a config file changes values and never adds keys. Only drivers see a `ConfigDict`
(train.py, evaluate.py and the entry modules); everything below them takes plain keyword arguments.
"""

import ast
import copy
import hashlib
import json
import pathlib
import runpy
import traceback
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from imagenet_jax.errors import UserError, unknown

# What a rerun may change: no result depends on it, but for the order of sums and, with `accumulate`, what dropout draws. Every
# other difference from the frozen config is refused.
FREE_ON_RESUME = (
    "mesh.fsdp", "accumulate", "distill.weights",  # where the teacher lies: what it is, record.freeze checks
    "eval_batch_size", "log_interval", "checkpoint_interval", "keep_checkpoints", "keep_every", "max_skipped", "stall_seconds",
    "data.threads", "data.processes", "data.prefetch", "data.cache", "data.check_crc",
)  # fmt: skip

# A ConfigDict. Its stubs give every attribute the union of all types it could hold, which helps nobody.
Config = Any

# Keyword arguments of the model and of the optimizer: keys are free there. models.create and optim.optimizers check them.
SETTINGS = ("model.settings", "optimizer")
OPTIMIZER = "--config.optimizer.name="

# How images become what the model sees. In `default()` these are None: the weights of init_from say it, else this does.
PREPROCESSING = {
    "image_size": 224,  # pixels, the side of the square that the model sees
    "crop_ratio": 0.875,  # evaluation: share of the short side that the central crop keeps (224 of 256)
    "interpolation": "bilinear",  # or bicubic (Pillow resizes), which many published weights were trained with
    "antialias": True,  # resize with a filter as wide as the shrinking asks for (torchvision, timm); False: as tf.image
    "mean": (0.485, 0.456, 0.406),  # per channel, of images in 0..1
    "std": (0.229, 0.224, 0.225),
}

AVERAGES = ("ema_decay", "swa_start", "lookahead", "schedule_free")  # the kinds of an average of the weights

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


def default() -> Config:
    """All settings. Units: epochs are passes over the training split, intervals are steps unless the comment says more."""
    c = config_dict.ConfigDict()
    c.seed = 0

    # Data: NAME[/CONFIG][:VERSION] of a prepared data set, and tfds split expressions; or the path of a plain folder,
    # PATH/SPLIT/CLASS/IMAGE (it starts with /, ./, ../ or ~, or has a scheme such as gs://), and names of its splits.
    c.dataset = "imagenet2012"
    c.train_split = "train"
    c.eval_split = "validation"
    for key, value in PREPROCESSING.items():
        c[key] = config_dict.placeholder(type(value))
    c.train_sizes = ()  # of training views: ((from this epoch on, pixels), ...), each size compiled once; (): image_size
    c.augment = ()  # the training view, in order: ((name, {setting: value}), ...), names from data/augmentation/augment.py
    c.repeats = 1  # views of an image in a row; an epoch keeps its length and shows 1 / repeats of the images
    c.data = config_dict.ConfigDict()
    c.data.decoder = "opencv"  # or numba (faster, needs the extra [fast]), pillow; they differ in pixels: frozen with the run
    c.data.threads = 0  # decoding threads a process; 0: one a visible core, shared out among data.processes
    c.data.processes = 0  # worker processes that decode; 0: none but this one, which 20,000 images/s do not outgrow
    c.data.prefetch = 4  # host batches decoded ahead
    c.data.cache = False  # keep the encoded images of both splits in memory once they were read; refused where they do not fit
    c.data.broken = "fail"  # training images that do not decode end the run; substitute: the next id stands in, and it is counted
    c.data.max_pixels = 64_000_000  # an image whose header says more is broken
    c.data.check_crc = False  # check the CRC32C of each TFRecord as it is read, about 0.4 ms for one of 110 KB

    # Model: a name from `python -m imagenet_jax.models`.
    c.model = config_dict.ConfigDict()
    c.model.name = config_dict.placeholder(str)  # None: the model of init_from, with its settings
    c.model.dtype = "float32"  # of convolutions and their inputs; logits and loss are at least float32
    c.model.param_dtype = "float32"
    c.model.settings = config_dict.ConfigDict({}, allow_dotted_keys=False)  # keyword arguments of the constructor
    c.bn_group = 0  # examples that share batch statistics; 0: the whole batch

    # Fine-tuning.
    c.init_from = ""  # a folder of weights (`convert`) or a run: its weights, model and preprocessing; "": random weights
    c.frozen = ()  # patterns searched in parameter paths: no update. Their BatchNorm statistics follow the data unless bn_frozen
    c.bn_frozen = False  # BatchNorm normalises with its running statistics in training too, and keeps them
    c.layer_decay = 1.0  # the learning rate of a layer is this to the power of the layers above it (models/depth.py); 1: off

    # Length and batch.
    c.epochs = 90.0
    c.batch_size = 256  # examples a step over all devices
    c.eval_batch_size = 0  # 0: as batch_size
    c.accumulate = 1  # parts that a device computes one after the other in a step, for memory; BN groups must fit into a part
    c.mesh = config_dict.ConfigDict()
    c.mesh.fsdp = 1  # devices that share one copy of parameters, optimizer state and averages, each holding a part
    c.eval_flip = False  # evaluation averages the logits of each image and its mirror image; every result says so
    c.eval_translate = 0  # and those of the image moved by so many pixels up-left and down-right, which weigh half

    # Optimizer: a name from optim/optimizers.py, which also says what its settings are and where its weight decay goes. They are
    # keys beside the name: c.optimizer.update(name="lamb", b2=0.99), --config.optimizer.momentum=0.85; else its defaults hold.
    # A flag that names another optimizer begins from that one's defaults.
    c.optimizer = config_dict.ConfigDict()
    c.optimizer.name = "sgd"
    c.weight_decay = 1e-4
    # Patterns searched in parameter paths such as "layer1_0/bn1/scale". Undecayed are, as in timm, vectors and numbers, tokens and
    # positions, and as in NFNet's paper, gains: all but kernels.
    c.no_weight_decay = (r"(^|/)(bias|scale|gamma|gain|skipinit_gain|cls_token|dist_token|pos_embed)$",)
    c.clip_norm = 0.0  # gradients are scaled down to this global L2 norm; 0: off
    c.agc = 0.0  # adaptive gradient clipping: to this share of the norm of the weights of each output (NFNet: 0.01); 0: off
    c.loss = "softmax"  # or sigmoid: a yes or no for each class, summed over them; sigmoid_mean: their mean (timm);
    # semantic_softmax: a softmax for each depth of ImageNet's classes in WordNet, for data sets with classes above others
    c.bce_target_threshold = 0.0  # sigmoid losses: targets above it become 1, others 0, after mixing; 0: as they are
    c.label_smoothing = 0.0
    c.distill = config_dict.ConfigDict()
    c.distill.weights = ""  # a folder of weights or a run that teaches; the same one is needed to resume; "": no teacher
    c.distill.kind = "soft"  # its probabilities (Hinton); hard: the class it chooses (DeiT)
    c.distill.alpha = 0.5  # what the teacher's part of the loss weighs; 1 - alpha is the labels'
    c.distill.temperature = 1.0  # of soft
    c.mixup_alpha = 0.0  # of the Beta distribution that the share of the other image follows; 0: off
    c.cutmix_alpha = 0.0  # likewise, of the area cut out and replaced; with both, one of them a step
    c.mix_probability = 1.0  # of mixing at all, a step
    c.mix_switch = 0.5  # of CutMix, where both are on
    c.sam_rho = 0.0  # sharpness-aware: the gradient that counts is taken this far (L2) up the gradient, at twice the cost; 0: off
    # One average of the weights may be kept, is evaluated beside them (named ema, whatever its kind), and used by predict.
    c.ema_decay = 0.0  # exponential, of parameters and BN statistics: what an update keeps; 0: off
    c.swa_start = 0.0  # the plain mean from this epoch on (SWA), with BN statistics of its own; 0: off
    c.lookahead = 0.0  # slow weights that training returns to: at the end they keep this share an update; 0: off
    c.schedule_free = 0.0  # beta: gradients are taken at this share of the average and 1 - beta of the parameters; 0: off
    c.ema_interval = 1  # steps from one update to the next, of the first three

    # Learning rate, a function of the step alone.
    c.learning_rate = 0.1  # peak, at a batch of lr_batch
    c.lr_scaling = "linear"  # with batch_size / lr_batch: linear, sqrt, or none
    c.lr_batch = 256
    c.schedule = "cosine"  # linear, poly, step, exponential, staircase, rsqrt, piecewise, constant: see optim/schedules.py
    c.warmup_epochs = 0.0  # linear
    c.warmup_start = 0.0  # share of the peak at which it begins
    c.end_learning_rate = 0.0  # where cosine, linear and poly end
    c.cooldown_epochs = 0.0  # at the end of any schedule, linear to 0
    c.decay_at = (1 / 3, 2 / 3)  # step schedule: divide at these shares of the training
    c.decay_factor = 0.1  # of step, exponential and staircase
    c.decay_epochs = 1.0  # exponential and staircase: epochs from one factor to the next
    c.decay_power = 2.0  # of poly
    c.schedule_points = ()  # piecewise: ((epoch, share of the peak), ...)

    # What the run writes, and when.
    c.log_interval = 100
    c.checkpoint_interval = 1000  # what is evaluated is saved too
    c.keep_checkpoints = 3  # the newest; beside them stay the best by top-1 of those that were evaluated,
    c.keep_every = 0  # and those at multiples of this step; 0: none
    c.max_skipped = 0  # steps in a row whose loss or gradient may be non-finite; they change nothing, and one more ends the run
    c.stall_seconds = 600.0  # all stacks are printed when no step and no evaluation batch ends for so long; 0: never
    c.eval_interval_epochs = 1.0  # 0: only at the end
    return c


def load(path: str, overrides: list[str]) -> Config:
    """Read a config file (it is Python and is executed) and apply `--config.key=value` overrides.

    `path` is a file, or the name of a recipe that comes with the package ("resnet50", "configs/resnet50.py"). A recipe with
    VARIANTS takes one of them after a colon ("resnet50_ffcv:16"), as the argument of its get_config.
    Raises UserError for a file that is not there, an unknown key (with near matches) and a value of the wrong type.
    """
    file = find(path)
    made = _made(file, path.partition(":")[2])
    if not isinstance(made, config_dict.ConfigDict):
        raise UserError(f"{file}: get_config() must return config.default() with changed values.")
    config: Any = made
    known, found = ([k for k in leaves(c.to_dict()) if not _free(k) and k not in SETTINGS] for c in (default(), config))
    for key in found:
        if key not in known:
            raise unknown("config key", key, known, f"{file} sets it; config.default() lists all.")
    if missing := set(known) - set(found):
        raise UserError(f"{file}: get_config() must return config.default() with changed values; {min(missing)} is gone.")
    typed, name = [], config.optimizer.name
    for flag in overrides:
        if flag.startswith(OPTIMIZER) and flag != OPTIMIZER + name:
            config.optimizer = config_dict.ConfigDict({"name": name})  # another optimizer has none of the file's settings
    for flag in overrides:
        key, _, value = flag.removeprefix("--config.").partition("=")
        if _free(key):  # their types are not known here
            section, _, setting = key.rpartition(".")
            settings = config.optimizer if section == "optimizer" else config.model.settings
            with settings.unlocked(), settings.ignore_type():
                settings[setting] = _literal(value)
            continue
        if key not in known:
            raise unknown("config key", key, known, "config.default() lists all.")
        typed.append(flag)
    argv, values = ["main", *typed], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, ValueError, SyntaxError) as error:
        raise UserError(f'{error}. Set as in --config.epochs=3 or --config.mean="(0.5,0.5,0.5)".') from None
    return config


def _made(file: pathlib.Path, variant: str) -> Any:
    """What get_config() of a file gives. Raises UserError, with the file's line, for whatever ends it."""
    try:
        return _call(file, runpy.run_path(str(file)), variant)
    except UserError:
        raise
    except Exception as error:  # of a program that is not ours
        at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else at[-1] if at else None
        where = f"{file}, line {line}" if line else file
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error


def _call(file: pathlib.Path, module: dict[str, Any], variant: str) -> Any:
    """The config that a file makes, of the variant that was asked for ("": its default)."""
    get_config = module.get("get_config", lambda: None)
    if not variant:
        return get_config()
    known = module.get("VARIANTS", ())
    if not known:
        raise UserError(f"{file} has no variants. Leave out the colon and {variant!r}.")
    if variant not in known:
        raise UserError(f"No variant {variant!r} of {file}. Known: {', '.join(known)}.")
    return get_config(variant)


def _free(key: str) -> bool:
    """Whether a dotted key is a setting of the model or of the optimizer."""
    return key.rpartition(".")[0] in SETTINGS and key != "optimizer.name"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def resolve(config: Config, preprocessing: Mapping[str, Any] = PREPROCESSING) -> Config:
    """A copy of the config in which no key of the preprocessing is None: what it leaves open is as `preprocessing` says."""
    resolved = copy.deepcopy(config)
    for key in PREPROCESSING:
        if resolved[key] is None:
            resolved[key] = preprocessing[key]
    return resolved


def find(path: str) -> pathlib.Path:
    """The config file that `path` names: itself, else the recipe of that stem in the checkout or the installed package.

    What follows a colon is the variant, and no part of the name.
    """
    path = path.partition(":")[0]
    file = pathlib.Path(path)
    if file.is_file():
        return file
    for stem, recipe in shipped().items():
        if path in (stem, f"{stem}.py", f"configs/{stem}.py"):
            return recipe
    raise UserError(f"No config file {path!r}. Recipes that come with the package: {', '.join(shipped())}.")


def shipped() -> dict[str, pathlib.Path]:
    """The recipes in the checkout, else in the installed package, by name."""
    folders = [f for f in (CHECKOUT / "configs", pathlib.Path(__file__).parent / "_configs") if f.is_dir()]
    return dict(sorted({f.stem: f for folder in reversed(folders) for f in folder.glob("*.py")}.items()))


def variants(file: pathlib.Path) -> tuple[str, ...]:
    """What may stand after a colon behind the recipe's name."""
    return tuple(runpy.run_path(str(file)).get("VARIANTS", ()))


def sha256(path: pathlib.Path) -> str:
    """Of the config file, printed at start: it is a program that the run executes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain(config: Config) -> dict[str, Any]:
    """The config as JSON gives it back: nested dicts, lists, numbers, strings. UserError: values that JSON does not know."""
    try:
        return json.loads(json.dumps(config.to_dict()))
    except TypeError as error:
        raise UserError(f"The config cannot be written down: {error}. Use Python's own numbers, strings and tuples.") from None


def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of a nested dict's leaves."""
    names = []
    for key, value in tree.items():
        names += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return names


def differences(frozen: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (frozen, wanted) for every leaf that differs between two plain configs."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*frozen, *wanted}):
        a, b = frozen.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found.update(differences(a, b, f"{prefix}{key}."))
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found
