"""A run that starts from weights, in stages: a probe, fine-tuning from its head (LP-FT, arXiv 2202.10054), and a mix of both.

Each stage ends in a file of the run, and a run that was killed in one of them begins with that one again:
probe.safetensors, last.safetensors and the best weights, mixed.safetensors where a mix is kept, and transfer.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from convnext.config import ClassificationRecipe, RunOptions
from convnext.data.labelled import Splits
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.fit import Finished
from convnext.engine.records import info
from convnext.engine.run import ORIGIN, OTHERS, header_of, last_of, refuse_other_run, save_whole
from convnext.engine.scored import Watcher
from convnext.files import to_json, write_text
from convnext.models.provenance import name_of_source
from convnext.models.weights import load_weights
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.facts import fingerprint
from convnext.tasks.classification.features import Extraction, Features, digest_of_tensors
from convnext.tasks.classification.inference import outcomes_of
from convnext.tasks.classification.metrics import TITLES, metrics, wilson
from convnext.tasks.classification.mixing import name_of
from convnext.tasks.classification.passing import Pass
from convnext.tasks.classification.probe import fit_head
from convnext.tasks.classification.scoring import answers
from convnext.tasks.classification.task import Classification
from convnext.tasks.fitting import describe, fit_described, fresh, origin_of, placed
from convnext.tasks.weights import file_of
from convnext.tasks.work import work_of

SUMMARY = "transfer.json"
NAMED = "named"  # key of what the weights that a person gave are called; their origin may be another file
Scores = Mapping[float, Mapping[str, float]]  # share of the fine-tuned weights -> metrics


@dataclass(frozen=True)
class Given:
    """What a part of a run has from the whole: the frozen network, what its header says, and its own features."""

    network: Mapping[str, Tensor]
    origin: Mapping[str, str]
    train: Features
    val: Features


@dataclass
class Stages:
    """One such run, or a part of one, stage by stage."""

    figure: ClassVar[str] = "top1"  # what people are told of weights
    recipe: ClassificationRecipe
    splits: Splits
    options: RunOptions
    device: torch.device
    world: World
    weights: str | None
    given: Given | None = None
    skipped: dict[str, str] = field(default_factory=dict)  # path -> reason
    notes: list[str] = field(default_factory=list)  # what was adapted on loading

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return Path(self.options.out)

    @property
    def description(self) -> dict[str, Any]:
        """What every checkpoint says of the data."""
        return self._task(nn.Identity()).describe()

    def frozen(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The network of the probe and its header."""
        return checkpoint.read(self.out / OTHERS["probe"])

    def probe(self, *, quiet: bool = False) -> dict[str, float]:
        """The scores of a linear head on the frozen network, which is then probe.safetensors; `quiet`: they are not told."""
        file = self.out / OTHERS["probe"]
        if not self.world.from_first(file.is_file()):
            self._fit_probe(file)
        metadata = checkpoint.read_metadata(file)
        refuse_other_run(self.out, metadata, self.recipe, self.description)
        self.notes = metadata["notes"]
        scores: dict[str, float] = metadata["metrics"]
        if self.world.first and not quiet:
            info(f"Frozen features: {self.told(scores[self.figure], metadata['n'])} held-out images.")
        return scores

    def tune(self, *, forecast: bool = False, watcher: Watcher | None = None) -> Finished:
        """Fine-tune from the probe's head, or go on with that; `forecast`: the first steps tell how long it takes.

        `watcher`: see `fit`.
        """
        model = fresh(self.recipe)
        tensors, metadata = self.frozen()
        if not last_of(self.out):  # a run that goes on has its weights
            model.load_state_dict(tensors)
        task = self._task(model)
        origin = {key: metadata[key] for key in ORIGIN if key in metadata}
        how: dict[str, Any] = {"device": self.device, "world": self.world, "origin": origin}
        work = work_of(self.recipe, self.splits) if forecast else None
        finished = fit_described(task, self.recipe, self.options, **how, work=work, watcher=watcher)
        self.skipped |= task.skipped
        return finished

    def answers(self, state: Mapping[str, Tensor]) -> Answers:
        """The logits that a network with these weights gives the held-out images."""
        model = fresh(self.recipe)
        model.load_state_dict(state)
        how = Pass(self.options.workers, progress=self.options.progress, skipped=self.skipped)
        with torch.inference_mode():
            return answers(
                placed(model, self.recipe, self.options, self.device),
                self.splits.val,
                self.recipe,
                how,
                world=self.world,
            )

    def scores(self, answers: Answers) -> dict[str, float]:
        """The figures that these answers make."""
        return metrics(outcomes_of(answers))

    def title(self, metric: str) -> str:
        """What people call a figure that chooses."""
        return TITLES[metric].capitalize()

    def told(self, rate: float, n: int) -> str:
        """'91.2% (88.0% to 93.6%) of 341': a rate, its 95 % interval, and of how many images it is."""
        low, high = wilson(rate, n)
        return f"{rate:.1%} ({low:.1%} to {high:.1%}) of {n:,}"

    def conclude(self, scores: Scores, share: float, *, n: int, crosswise: int = 0) -> dict[str, Any]:
        """Say which weights are kept, write transfer.json, and return what evaluation.json says of the choice.

        `n`: images that decided; `crosswise`: parts of them, each of which was held out once; 0: they all were held out.
        """
        about = {
            "chosen": name_of(share),
            **_by_name(scores, self.figure),
            **({"crosswise": crosswise} if crosswise else {}),
        }
        if not self.world.writes():
            return about
        header = checkpoint.read_metadata(self.out / OTHERS["probe"])
        found = {
            **about,
            "share": share,
            "n": n,
            "candidates": [{"share": each, **scores[each]} for each in sorted(scores)],
            "notes": self.notes,
            **{key: header[key] for key in (*ORIGIN, NAMED) if key in header},
        }
        write_text(self.out / SUMMARY, to_json(found, indent=1) + "\n")
        if len(scores) > 1:
            metric = self.recipe.select.metric
            shown = [f"{_named(each)} {scores[each][metric]:.1%}" for each in sorted(scores)]
            way = f"by cross-validation in {crosswise} parts" if crosswise else "on the held-out images"
            again = (
                f", {'fitted' if share == 0 else 'trained'} again on all images ({OTHERS['mixed']})"
                if crosswise
                else ""
            )
            info(f"{self.title(metric)} {way}: {', '.join(shown)}. Kept: {_named(share)}{again}.")
        return about

    def features(self, model: nn.Module, *, quiet: bool = False) -> tuple[Features, Features]:
        """Of the images to train on and of those held out, as the network gives them; mirrored ones after them.

        `quiet`: without a line of progress, for features that the run has made before.
        """
        digest = digest_of_tensors({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
        extraction = Extraction(
            model=placed(model, self.recipe, self.options, self.device),
            recipe=self.recipe,
            folder=self.out / "features",
            digest=digest,
            workers=self.options.workers,
            world=self.world,
            progress=self.options.progress and not quiet,
        )
        views = 2 if self.recipe.start.mirror else 1
        parts = {"train": (self.splits.train, views), "val": (self.splits.val, views if self.recipe.start.folds else 1)}
        found = [
            extraction.of(data, name, fingerprint=fingerprint(data), views=many, skipped=self.skipped)
            for name, (data, many) in parts.items()
        ]
        return found[0], found[1]

    def _fit_probe(self, file: Path) -> None:
        """Make the features where the run as a whole has not, fit the head and write the whole network."""
        if self.world.first:
            describe(self.recipe, self.options, self.device)
        model = fresh(self.recipe)
        if self.given:
            origin, train, val, named = self.given.origin, self.given.train, self.given.val, {}
            model.load_state_dict(self.given.network)
        else:
            origin = origin_of(self.weights, self.world) if self.weights else {}
            named = {NAMED: name_of_source(file_of(self.weights))} if self.weights else {}
            if self.weights:
                load_weights(model, file_of(self.weights), classes=self.splits.train.classes, info=self._noted)
            train, val = self.features(model)
        if self.world.writes():
            classes, seed = self.recipe.model.classes, self.recipe.seed
            head = fit_head(train.values, train.labels, classes, seed=seed, loss=self.recipe.loss)
            logits = head(val.values[0]).float().numpy()
            scores = self.scores(Answers(val.indices.numpy(), val.labels.numpy(), logits))
            metric = self.recipe.select.metric
            about = {"weights": "probe", "score": scores[metric], "metrics": scores, "step": 0, "n": len(val.labels)}
            header = header_of(self.recipe, self.description, origin)
            about |= {"penalty": head.penalty, "notes": self.notes, **named}
            state = {**model.state_dict(), "head.weight": head.weight.float(), "head.bias": head.bias.float()}
            save_whole(file, state, header | about)
        self.world.wait()

    def _task(self, model: nn.Module) -> Classification:
        return Classification(model, self.recipe, self.options, self.splits)

    def _noted(self, line: str) -> None:
        self.notes.append(line)
        if self.world.first:
            info(line)


def _by_name(scores: Scores, figure: str) -> dict[str, float]:
    """{'probe_top1', 'finetuned_top1', 'mixed_top1'}, the last of the best mix; without what there is not."""
    found: dict[str, float] = {}
    for share, each in scores.items():
        key = f"{name_of(share)}_{figure}"
        found[key] = max(found.get(key, 0.0), each[figure])
    return found


def _named(share: float) -> str:
    return f"{share:.0%} fine-tuned" if name_of(share) == "mixed" else {0.0: "probe", 1.0: "fine-tuned"}[share]
