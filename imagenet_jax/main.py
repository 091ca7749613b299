"""Train: python -m imagenet_jax.main --config=configs/resnet50.py --workdir=runs/r50 [--config.batch_size=512 ...]"""

from imagenet_jax import cli, config, processes
from imagenet_jax.data.storage.locate import data_dir
from imagenet_jax.errors import UserError

DESCRIPTION = """Train an image classifier. Running the same command again goes on where it stopped.

Any key of the config can be set: --config.batch_size=512 --config.model.name=resnet18
--dry_run prints all of them. Exit codes: 0 finished, 1 the run failed, 2 the user's mistake,
and 128 + its number where a signal stopped it, after saving: 130 SIGINT, 143 SIGTERM, 138 SIGUSR1.

Several hosts: start it on each of them, with the same flags; a signal to one of them stops all."""


def main(argv: list[str]) -> int:
    """Parse the flags and call train.train."""
    parser = cli.parser("main", DESCRIPTION)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, or the name of one in configs/")
    parser.add_argument("--workdir", required=True, help="directory of the run; made if it is absent")
    parser.add_argument("--data_dir", help="data sets, also in gs:// or s3://; default: TFDS_DATA_DIR, else ~/tensorflow_datasets")
    parser.add_argument("--stop_after", type=int, metavar="STEP", help="save and stop at this step; changes no schedule")
    parser.add_argument("--dry_run", action="store_true", help="print shapes, steps, memory and the config, then stop")
    processes.add_flags(parser)
    flags, overrides = parser.parse_known_args(argv)
    strange = [flag for flag in overrides if not flag.startswith("--config.")]
    if strange:
        near = [word for word in strange if word.startswith("--")][:1] or ["--KEY=VALUE"]
        raise UserError(f"Unknown arguments: {' '.join(strange)}. Keys of the config are set as in --config.{near[0][2:]}.")
    if flags.stop_after is not None and flags.stop_after < 1:
        raise UserError(f"--stop_after={flags.stop_after} must be at least 1.")
    if "://" in flags.workdir:
        raise UserError(f"--workdir={flags.workdir} is no directory: mount the bucket, and name one in it (launch/README.md).")
    if not flags.workdir.strip():
        raise UserError("--workdir is empty: name a directory. Was a variable of the shell not set?")
    workdir = cli.path(flags.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file. Name a directory.")

    file = config.find(flags.config)
    chosen = config.load(flags.config, overrides)
    # Not at the top: jax and orbax take three seconds, which --help or a typo need not wait for.
    from imagenet_jax import distributed, runtime, train

    distributed.start(flags)
    runtime.setup()
    print(f"Config {file} (sha256 {config.sha256(file)[:12]}), run in {workdir}\n", flush=True)
    where = data_dir(flags.data_dir)
    with distributed.naming_the_lost():
        return train.train(chosen, workdir, data_dir=where, stop_after=flags.stop_after, dry_run=flags.dry_run)


if __name__ == "__main__":
    cli.run(main)
