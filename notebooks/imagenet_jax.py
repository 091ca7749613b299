# %% [markdown]
# # imagenet_jax: train, look, resume, predict
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/imagenet_jax.ipynb)
#
# **Publishing this notebook?** Put the repository's address in two places of `notebooks/imagenet_jax.py`: `OWNER/REPOSITORY` in the
# badge's link above, and `REPOSITORY` in the next cell. Then `python notebooks/pair.py` writes the `.ipynb`.
#
# In Colab, choose a CPU, GPU or TPU under *Runtime > Change runtime type*, and run the cells from the top. Runs are kept on your
# Drive. **After a restart run all cells again**: finished runs are left alone, and an unfinished one goes on where it stopped.
# Elsewhere, in an environment with `imagenet_jax[quickstart]`, everything runs offline on embedded digits.

# %%
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

COLAB = importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None
OFFLINE = not COLAB  # True: the second training is a short one on digits too, instead of Imagenette, which is fetched
REPOSITORY = ""  # https://...: Colab installs the package from there

if COLAB:
    from google.colab import drive

    drive.mount("/content/drive")
RUNS = pathlib.Path("/content/drive/MyDrive/imagenet_jax" if COLAB else os.environ.get("IMAGENET_JAX_RUNS", "runs/notebook"))
RUNS.mkdir(parents=True, exist_ok=True)


def python(*arguments):
    """Run `python ARGUMENTS`, show what it prints as it comes, and stop the notebook if it fails."""
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if not (line.startswith("  ") and " = " in line):  # the config, key by key: config.json has it
                print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(command[1:])} ended with exit code {process.returncode}: see above.")


# %% [markdown]
# ## Install

# %%
if COLAB:
    if not REPOSITORY:
        raise ValueError("REPOSITORY is empty. Set it to the repository's address in the cell above.")
    tpu = pathlib.Path("/dev/vfio").exists() or pathlib.Path("/dev/accel0").exists()
    extras = "quickstart" + (",cuda" if shutil.which("nvidia-smi") else ",tpu" if tpu else "")
    python("-m", "pip", "install", "--quiet", f"imagenet_jax[{extras}] @ git+{REPOSITORY}")

# A process of its own asks: while this one held a TPU, no training could have it.
python("-c", "import jax; print(*jax.devices())")

# %% [markdown]
# ## Quickstart: handwritten digits, stopped on the way and resumed
#
# The first command saves and stops at step 100, as a runtime that is taken away would. The second is the same one without
# `--stop_after`: it goes on at step 100, and on a CPU the result is that of an uninterrupted run in every bit.

# %%
quickstart = ["-m", "imagenet_jax.main", "--config=configs/quickstart.py", f"--workdir={RUNS / 'quickstart'}"]
python(*quickstart, "--stop_after=100")

# %%
python(*quickstart)

# %% [markdown]
# ## What a run looks like
#
# A run is a folder of plain files. The package's report module reads and draws them: curves, confusion matrix, samples.

# %%
import numpy as np
from IPython.display import Image, Markdown, display
from PIL import Image as Pillow

from imagenet_jax.report import plots, read, sheet, tables
from imagenet_jax.report.curves import draw_curves


def show(name):
    """Results, curves, confusion matrix and sample predictions of the run RUNS/name."""
    run = read.read_run(RUNS / name, name)
    rows = [f"| {r.split} | {r.weights} | {r.images:,} | {tables.percent(r.top1)} | {r.loss:.4f} |" for r in tables.results(run)]
    display(Markdown("\n".join(["| split | weights | images | top-1 | loss |", "|---|---|---:|---:|---:|", *rows])))

    folder = RUNS / name / "notebook"
    folder.mkdir(exist_ok=True)
    for curve in draw_curves([run], folder)[:3]:
        if curve.picture:
            display(Markdown(f"**{curve.title}**"), picture(folder, curve.picture))

    evaluation = tables.main_evaluation(run)
    weights, names = tables.shown_weights(evaluation), evaluation.content["classes"]
    matrix = plots.save_confusion(evaluation.confusion[weights], names, folder, "confusion")
    display(Markdown("**Confusion matrix**"), picture(folder, matrix))

    samples = [s for s in tables.sample_cards(run, evaluation, weights) if s["link"]]
    pictures = [np.asarray(Pillow.open(RUNS / name / "eval" / s["thumbnail"]).convert("RGB")) for s in samples]
    captions = [(f"{s['guesses'][0]['probability']:.0%} {s['guesses'][0]['name']}", f"true: {s['label_name']}") for s in samples]
    sheet.write_sheet(folder / "samples.png", pictures, captions)
    display(Markdown("**Predictions**"), Image(str(folder / "samples.png")))


def picture(folder, drawn):
    """A picture of the report, at the size it was drawn for."""
    return Image(str(folder / f"{drawn.stem}-light.png"), width=drawn.width, height=drawn.height)


show("quickstart")

# %% [markdown]
# ## Photographs: Imagenette
#
# Ten easy classes of ImageNet, 160 px. Offline, three epochs on the digits stand in for it.

# %%
if OFFLINE:
    name, settings = "short", ["--config=configs/quickstart.py", "--config.epochs=3"]
else:
    name, settings = "imagenette", ["--config=configs/imagenette.py"]
    if not pathlib.Path("imagenette2-160").exists():
        url = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"
        subprocess.run(["curl", "--fail", "--location", "--output", "imagenette2-160.tgz", url], check=True)
        subprocess.run(["tar", "--extract", "--gzip", "--file", "imagenette2-160.tgz"], check=True)
    folders = ["--train=imagenette2-160/train", "--validation=imagenette2-160/val"]
    python("-m", "imagenet_jax.prepare", "folder", "--name=imagenette", *folders)

python("-m", "imagenet_jax.main", *settings, f"--workdir={RUNS / name}")
python("-m", "imagenet_jax.evaluate", f"--workdir={RUNS / name}")
python("-m", "imagenet_jax.report", RUNS / name, RUNS / "quickstart")  # a page that compares both

# %%
show(name)

# %% [markdown]
# ## A photograph of yours
#
# In Colab a button asks for one; elsewhere it is a digit that the evaluation showed.

# %%
if COLAB:
    from google.colab import files

    photos = [pathlib.Path(uploaded).absolute() for uploaded in files.upload()]  # a name may begin with a dash
else:
    photos = sorted((RUNS / name / "eval").rglob("*.jpg"))[:1]
weights = RUNS / ("quickstart" if OFFLINE else name)  # three epochs are too few to be sure of anything

python("-m", "imagenet_jax.predict", f"--weights={weights}", f"--sheet={RUNS / 'seen.png'}", *photos)
display(Image(str(RUNS / "seen.png")))
