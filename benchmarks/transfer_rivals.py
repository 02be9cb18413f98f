"""What people would do with the same weights elsewhere: other trainers' published defaults, each in a few lines of torch.

All start from one network with a fresh head and end as a function that answers images. Images lie in memory as uint8,
their shorter side as long as the network's input, which is what all of them see.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from convnext.config import OptimConfig
from convnext.engine.depths import parameter_groups
from convnext.models.fused import fuse

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
Images = list[Tensor]  # (3, H, W) uint8, the shorter side `px`
Rival = Callable[[nn.Module, Images, Tensor, int, int], nn.Module]  # (network, images, labels, px, seed) -> trained


def read(folder: Path, classes: list[str], px: int) -> tuple[Images, Tensor]:
    """The images below `folder`/<class>, their shorter side `px`, and the places of their classes in `classes`."""
    images, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            factor = px / min(image.size)
            size = (max(px, round(image.width * factor)), max(px, round(image.height * factor)))
            resized = image.resize(size, Image.Resampling.BICUBIC)
            images.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous())
            labels.append(label)
    return images, torch.tensor(labels)


def normalised(batch: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 as the network was trained to see it."""
    return ((batch.permute(0, 2, 3, 1) / 255 - MEAN) / STD).permute(0, 3, 1, 2)


def centres(images: Images, px: int) -> Tensor:
    """The middle square of each image: (N, 3, px, px) uint8."""
    return torch.stack([v2.functional.center_crop(image, [px, px]) for image in images])


@torch.inference_mode()
def accuracy(network: nn.Module, images: Images, labels: Tensor, px: int) -> float:
    """The share of `images` whose class comes first."""
    answers = [network(normalised(part)).argmax(1) for part in centres(images, px).split(64)]
    return (torch.cat(answers) == labels).double().mean().item()


def autogluon(network: nn.Module, images: Images, labels: Tensor, px: int, seed: int) -> nn.Module:
    """AutoGluon's MultiModal defaults: AdamW 1e-4, layer decay 0.9, cosine after 10 % warm-up, 20 epochs, clip 1."""
    epochs, batch = 20, min(128, len(images))
    groups = parameter_groups(
        network, OptimConfig(name="adamw", lr=1e-4, batch=batch, weight_decay=1e-3, layer_decay=0.9)
    )
    optimizer = torch.optim.AdamW([{**group, "lr": 1e-4 * group["lr_scale"]} for group in groups])
    total = epochs * math.ceil(len(images) / batch)

    def rate(step: int) -> float:
        warmup = max(1, total // 10)
        return (
            (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    augment = v2.Compose([v2.RandomCrop(px), v2.TrivialAugmentWide()])
    return _trained(network, images, labels, batch, epochs, augment, optimizer, schedule, seed, clip=1.0)


def fastai(network: nn.Module, images: Images, labels: Tensor, px: int, seed: int, length: int = 20) -> nn.Module:
    """fastai's `fine_tune(length)`: an epoch of the head at 2e-3, then half of it, early layers a hundredth; one cycle each."""
    batch, lr = min(64, len(images)), 2e-3
    augment = v2.Compose([v2.RandomResizedCrop(px, scale=(0.35, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    early, late, head = [], [], []
    for name, value in network.named_parameters():
        place = (
            head
            if name.startswith(("norm.", "head."))
            else late
            if name.startswith(("stages.2", "stages.3"))
            else early
        )
        place.append(value)
    for frozen, epochs, peak, warm in ((True, 1, lr, 0.99), (False, length, lr / 2, 0.3)):
        for value in early + late:
            value.requires_grad = not frozen
        rates = [(head, peak)] if frozen else [(early, peak / 100), (late, peak / 10), (head, peak)]
        optimizer = torch.optim.AdamW([{"params": values, "lr": rate} for values, rate in rates], weight_decay=0.01)
        steps = epochs * math.ceil(len(images) / batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [rate for _, rate in rates],
            total_steps=max(4, steps),  # the fewest that its phases can be cut into
            pct_start=warm,
            div_factor=25.0 if frozen else 5.0,
            final_div_factor=1e5,
            base_momentum=0.85,
            max_momentum=0.95,
        )
        network = _trained(network, images, labels, batch, epochs, augment, optimizer, schedule, seed)
    return network


def logistic(network: nn.Module, images: Images, labels: Tensor, px: int, seed: int) -> nn.Module:
    """Logistic regression by scikit-learn, C by cross-validation, on the features of the frozen network."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network.eval()
    head, network.head = network.head, nn.Identity()
    with torch.inference_mode():
        features = torch.cat([network(normalised(part)) for part in centres(images, px).split(64)]).numpy()
    folds = min(5, int(labels.bincount().min()))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    search = GridSearchCV(pipeline, {"logisticregression__C": np.logspace(-4, 1, 6)}, cv=folds)
    scaler, found = search.fit(features, labels.numpy()).best_estimator_
    weight = torch.from_numpy(found.coef_ / scaler.scale_)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(torch.from_numpy(found.intercept_) - weight @ torch.from_numpy(scaler.mean_))
    network.head = head
    return network


def _trained(
    network: nn.Module,
    images: Images,
    labels: Tensor,
    batch: int,
    epochs: int,
    augment: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
    clip: float = 0.0,
) -> nn.Module:
    """`network` after `epochs` passes in random order, the last batch of a pass as large as what is left."""
    torch.manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            seen = normalised(torch.stack([augment(images[i]) for i in chosen.tolist()]))
            F.cross_entropy(network(seen.contiguous(memory_format=torch.channels_last)), labels[chosen]).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
    return network.eval()


RIVALS: dict[str, Rival] = {
    "autogluon": autogluon,
    "fastai": fastai,
    "fastai_100": partial(fastai, length=100),  # of 10 images a class about our time
    "logistic": logistic,
}


def prepared(network: nn.Module) -> nn.Module:
    """A copy in the memory format and on the kernels that our own runs use: nobody is slower for the sake of it."""
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    fuse(network)
    return network
