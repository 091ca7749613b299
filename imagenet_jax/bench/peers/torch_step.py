"""PyTorch's training step of the same model, batch and precision, in a process of its own: the peer of `bench step --peer=torch`.

As fast as its own tuning guide makes it: channels_last, autocast, torch.compile (CUDA graphs where there is a GPU), fused SGD.
"""

import multiprocessing.connection
import time
from typing import Any

import torch
from torch import nn

WARM = 10  # steps: compilation, autotuning and recording of graphs
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Ours -> timm's, where torchvision has none. (Nobody has CIFAR's ResNets.)
SIZES = {"ti": "tiny", "s": "small", "b": "base"}
TIMM = {
    "resnet50d": "resnet50d",
    **{f"efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
    **{f"nfnet_f{i}": f"dm_nfnet_f{i}" for i in range(2)},
    **{f"convnextv2_{size}": f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base")},
    **{f"vit_{size}_{patch}": f"vit_{SIZES[size]}_patch{patch}_224" for size, patch in (("ti", 16), ("s", 16), ("s", 32))},
    **{f"deit_{size}_16": f"deit_{SIZES[size]}_patch16_224" for size in SIZES},
    **{f"deit_{size}_16_distilled": f"deit_{SIZES[size]}_distilled_patch16_224" for size in SIZES},
    **{f"mixer_{size}_16": f"mixer_{size}16_224" for size in ("s", "b")},
}


def serve(pipe: multiprocessing.connection.Connection, name: str, dtype: str, batch_size: int, size: int, classes: int) -> None:
    """Build and warm up, send (None, a description), then for each number of steps that comes send (None, seconds a step).

    What goes wrong is sent as (text, None).
    """
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        step = _step(_model(name, classes), DTYPES[dtype], batch_size, size, classes, device)
        begin = time.perf_counter()
        _seconds(step, WARM, device)
        pipe.send((None, f"torch {torch.__version__}, {_named(device)}, ready after {time.perf_counter() - begin:.0f} s"))
        while steps := pipe.recv():
            pipe.send((None, _seconds(step, steps, device)))
    except EOFError:
        return
    except Exception as error:  # of torch, the compiler or CUDA: the caller reports it beside its own figures
        pipe.send((f"{type(error).__name__}: {error}", None))


def _model(name: str, classes: int) -> nn.Module:
    if name in TIMM:
        import timm

        return timm.create_model(TIMM[name], num_classes=classes)
    import torchvision

    return torchvision.models.get_model(name, num_classes=classes)


def _step(model: nn.Module, dtype: torch.dtype, batch_size: int, size: int, classes: int, device: torch.device) -> Any:
    """One call is one step: uint8 images normalised on the device, cross-entropy, SGD with momentum."""
    torch.backends.cudnn.benchmark = True
    model = model.to(device).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-5, fused=device.type == "cuda")
    images = torch.randint(256, (batch_size, 3, size, size), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch_size,), device=device)

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            return nn.functional.cross_entropy(model((images.to(dtype) - 117) / 58), labels)

    compiled = torch.compile(loss, mode="max-autotune" if device.type == "cuda" else None)

    def step() -> None:
        compiled(images, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _seconds(step: Any, steps: int, device: torch.device) -> float:
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
