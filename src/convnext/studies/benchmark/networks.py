"""Networks of the same shape from every library, as one call on a batch of random images.

Nothing is loaded: speed does not depend on the weights. Axes: N images, K classes.
"""

import copy
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convnext.config import ConvNeXtConfig
from convnext.deploy.optimize import optimize
from convnext.errors import ConvNeXtError
from convnext.kernels.dispatch import without_kernels
from convnext.models.build import build_model
from convnext.models.fused import fuse
from convnext.studies.benchmark.jobs import Job, Settings

Call = Callable[[], Any]


def network(job: Job) -> nn.Module:
    """The contender's network on its device, in the mode and memory format that it runs in; not yet compiled.

    Raises ConvNeXtError where a library has no such network.
    """
    settings = job.settings
    config = settings.config
    if job.origin == "other":
        model: nn.Module = import_module("timm").create_model(job.network, num_classes=config.classes)
    else:
        model = {"convnext": build_model, "timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[
            job.library
        ](config)
    model = model.train(settings.mode == "training").to(settings.device)
    if settings.mode == "inference":
        model.requires_grad_(False)
        if settings.dtype == "bf16":
            model = model.bfloat16()
    if _channels_last(job):
        model = model.to(memory_format=torch.channels_last)
    if job.form == "fused":
        if not fuse(model):
            reason = without_kernels(torch.device(settings.device)) or "this network has none"
            raise ConvNeXtError(f"the fused blocks do not run here: {reason}")
    elif job.library == "convnext" and settings.mode == "inference" and job.form in ("optimized", "compiled"):
        model = optimize(model)
    return model


def inference(job: Job, model: nn.Module) -> Callable[[int], Call]:
    """batch -> the call that answers for it, (N, 3, H, W) already on the device."""
    run = _compiled(job, model)

    def of(batch: int) -> Call:
        x = images(job, batch)

        def call() -> None:
            with torch.inference_mode():
                run(x)

        return call

    return of


def training(job: Job, model: nn.Module) -> Callable[[int], Call]:
    """batch -> one step: forward, cross-entropy, backward, AdamW; bf16 by autocast, weights in float32."""
    settings = job.settings
    run = _compiled(job, model)
    adamw = optimizer(model.parameters())
    cast = settings.dtype == "bf16"

    def of(batch: int) -> Call:
        x = images(job, batch)
        labels = torch.randint(0, settings.config.classes, (batch,), device=settings.device)

        def call() -> None:
            with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=cast):
                answer = run(x)
            F.cross_entropy(_logits(answer).float(), labels).backward()
            adamw.step()
            adamw.zero_grad(set_to_none=True)

        return call

    return of


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """The same for everybody."""
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)


def images(job: Job, batch: int) -> Tensor:
    """(N, in_channels, H, W) normal noise in the dtype and memory format of `job`."""
    settings = job.settings
    x = torch.randn(batch, settings.config.in_channels, settings.size_px, settings.size_px).to(settings.device)
    if settings.mode == "inference" and settings.dtype == "bf16":
        x = x.bfloat16()
    return x.contiguous(memory_format=torch.channels_last) if _channels_last(job) else x


def _compiled(job: Job, model: nn.Module) -> Callable[[Tensor], Any]:
    return torch.compile(model, dynamic=False) if job.form == "compiled" else model


def _channels_last(job: Job) -> bool:
    """As its users run it: torch's default for a peer, unless its form says otherwise."""
    return job.library == "convnext" or job.form in ("channels_last", "compiled")


def _logits(answer: Any) -> Tensor:
    return getattr(answer, "logits", answer)


def _timm(config: ConvNeXtConfig) -> nn.Module:
    timm = import_module("timm")
    known = f"convnextv2_{config.name.removeprefix('v2_')}" if config.grn else f"convnext_{config.name}"
    if timm.is_model(known):
        model: nn.Module = timm.create_model(known, num_classes=config.classes, in_chans=config.in_channels)
        return model
    _staged("timm", config)
    built: nn.Module = import_module("timm.models.convnext").ConvNeXt(
        in_chans=config.in_channels,
        num_classes=config.classes,
        depths=config.depths,
        dims=config.widths,
        kernel_sizes=config.kernel,
        patch_size=config.patch,
        ls_init_value=config.layer_scale,
        use_grn=config.grn,
    )
    return built


def _torchvision(config: ConvNeXtConfig) -> nn.Module:
    _staged("torchvision", config)
    if config.grn or config.kernel != 7 or config.patch != 4:
        raise ConvNeXtError("torchvision has V1 with kernel 7 and patches of 4 px only")
    models = import_module("torchvision").models
    after = (*config.widths[1:], None)
    shape = [models.convnext.CNBlockConfig(*each) for each in zip(config.widths, after, config.depths, strict=True)]
    model: nn.Module = models.ConvNeXt(shape, num_classes=config.classes)
    return model


def _transformers(config: ConvNeXtConfig) -> nn.Module:
    _staged("transformers", config)
    library, family = import_module("transformers"), "ConvNextV2" if config.grn else "ConvNext"
    values: dict[str, Any] = {
        "num_channels": config.in_channels,
        "patch_size": config.patch,
        "num_stages": len(config.depths),
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "num_labels": config.classes,
    }
    if not config.grn:
        values["layer_scale_init_value"] = config.layer_scale or 0.0
    model: nn.Module = getattr(library, f"{family}ForImageClassification")(
        getattr(library, f"{family}Config")(**values)
    )
    return model


def _staged(library: str, config: ConvNeXtConfig) -> None:
    varied = config.norm != "layer" or config.norm_first or config.head_width
    if config.stem != "patch" or not config.stem_norm or len(config.depths) != 4 or varied:
        raise ConvNeXtError(f"{library} has no ConvNeXt of the form of '{config.name}'")


def plain(settings: Settings) -> nn.Module:
    """Our network in evaluation mode on the CPU, for an exporter."""
    return copy.deepcopy(build_model(settings.config)).eval().requires_grad_(False)
