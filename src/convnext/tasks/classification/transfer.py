"""How a run that starts from weights ends: with the best of probe, fine-tuned weights and their mixes.

The held-out images choose. Where a run has few images and holds some of them out by itself, every image is held out once
instead: the data are cut into parts, and each part judges a network that was fine-tuned on the others. What is kept is
then fine-tuned on all of them. The mean of the networks of the parts would need no run of its own; it was a little worse.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from convnext.config import ClassificationRecipe, RunOptions, override
from convnext.data.labelled import Dataset, Splits
from convnext.engine import checkpoint
from convnext.engine.distributed import World
from convnext.engine.fit import Finished
from convnext.engine.records import info
from convnext.engine.run import LAST, ORIGIN, OTHERS, save_whole, weights_file
from convnext.engine.scored import Watcher
from convnext.tasks.classification.answers import Answers
from convnext.tasks.classification.features import Features
from convnext.tasks.classification.mixing import Tensors, best_share, mixed, name_of
from convnext.tasks.classification.probe import in_turns
from convnext.tasks.classification.several.stages import SeveralStages
from convnext.tasks.classification.stages import Given, Stages
from convnext.tasks.fitting import Ended, fresh, in_one_go

STAGES: dict[str, type[Stages]] = {"single": Stages, "multi": SeveralStages}  # what an image has -> its stages


def carry_out(
    recipe: ClassificationRecipe,
    splits: Splits,
    options: RunOptions,
    *,
    device: torch.device,
    world: World,
    weights: str | None,
    forecast: bool = False,
    watcher: Watcher | None = None,
) -> Ended:
    """Go through the stages that `options.out` has not yet behind it; there is one where the recipe asks for no probe.

    Raises what loading and `fit` raise.
    """
    if recipe.start.mode == "full":
        how: dict[str, Any] = {"device": device, "world": world, "weights": weights, "forecast": forecast}
        return in_one_go(recipe, splits, options, **how, watcher=watcher)
    run = STAGES[recipe.labels](recipe, splits, options, device, world, weights)
    probe = run.probe()
    if recipe.start.mode == "probe":
        about = run.conclude({0.0: probe}, 0.0, n=run.frozen()[1]["n"])
        return Ended(Finished(recipe.select.metric, probe[recipe.select.metric], "probe", 0), run.skipped, about=about)
    if recipe.start.folds and splits.val_share:  # images of a val part of their own are never trained on
        return _crosswise(run)
    return _held_out(run, probe, forecast=forecast, watcher=watcher)


def _held_out(run: Stages, probe: Mapping[str, float], **how: Any) -> Ended:
    """The held-out images choose between the probe (0), the fine-tuned weights (1) and mixes of them."""
    finished = run.tune(**how)
    frozen, header = run.frozen()
    tuned, best = checkpoint.read(weights_file(run.out, finished.weights))
    scores: dict[float, Mapping[str, float]] = {0.0: probe, 1.0: best["metrics"]}
    for share in run.recipe.start.mix:
        if share not in scores:
            scores[share] = run.scores(run.answers(mixed(frozen, tuned, share)))
    metric = run.recipe.select.metric
    share, n = best_share(scores, metric), header["n"]
    if name_of(share) == "mixed" and run.world.writes():
        header |= {"weights": "mixed", "share": share, "score": scores[share][metric], "metrics": scores[share]}
        save_whole(run.out / OTHERS["mixed"], mixed(frozen, tuned, share), {**header, "step": finished.step})
    run.world.wait()
    about = run.conclude(scores, share, n=n)
    name = {"probe": "probe", "finetuned": finished.weights, "mixed": "mixed"}[name_of(share)]
    kept = replace(finished, score=scores[share][metric], weights=name)
    return Ended(kept, run.skipped, about=about)


def _crosswise(run: Stages) -> Ended:
    """All images choose, each judged by a network that has not seen it; the mean of these networks is kept."""
    whole = _Whole.of(run)
    parts = [run, *whole.others(run)]
    if run.world.first:
        info(
            f"Few images are held out, so {len(parts)} parts of all {len(whole.data.entries):,} choose crosswise, each "
            "judging a network that is fine-tuned on the others; the one that is kept learns from all of them."
        )
    pooled: dict[float, list[Answers]] = {share: [] for share in sorted({0.0, 1.0, *run.recipe.start.mix})}
    for number, part in enumerate(parts):
        if run.world.first:
            info(f"Part {number + 1} of {len(parts)}:")
        if number:
            part.probe()
        part.tune()
        frozen, tuned = part.frozen()[0], _last(part)
        for share, found in pooled.items():
            answers = part.answers(mixed(frozen, tuned, share))
            found.append(replace(answers, index=whole.held[number].numpy()[answers.index]))
        run.skipped |= part.skipped
    joined = {share: Answers.join(found) for share, found in pooled.items()}
    scores = {share: run.scores(answers) for share, answers in joined.items()}
    metric = run.recipe.select.metric
    share, n = best_share(scores, metric), len(joined[0.0])
    if run.world.first:
        info(
            f"All {len(whole.data.entries):,} images, which this one learns from (what it scores on them means little):"
        )
    last = whole.everything(run)
    last.probe(quiet=True)
    finished = last.tune()
    if run.world.writes():
        header = run.frozen()[1]
        state = mixed(last.frozen()[0], _last(last), share)
        header |= {"weights": "mixed", "share": share, "score": scores[share][metric], "metrics": scores[share]}
        save_whole(run.out / OTHERS["mixed"], state, {**header, "step": finished.step, "crosswise": len(parts), "n": n})
    run.world.wait()
    about = run.conclude(scores, share, n=n, crosswise=len(parts))
    kept = replace(finished, score=scores[share][metric], weights="mixed")
    return Ended(kept, run.skipped, (whole.data, joined[share]), about, whole.data)


@dataclass(frozen=True)
class _Whole:
    """All images of a run, the features of those that can be read, and which of them each part holds out."""

    data: Dataset
    features: Features
    held: tuple[torch.Tensor, ...]  # of each part, places in `data`; the first are those that the run holds out itself

    @classmethod
    def of(cls, run: Stages) -> "_Whole":
        """With the features that the probe was made of."""
        train, val = run.splits.train, run.splits.val
        model = fresh(run.recipe)
        model.load_state_dict(run.frozen()[0])
        first, second = run.features(model, quiet=True)
        data = Dataset(train.classes, (*train.entries, *val.entries), train.store)
        features = Features(
            torch.cat([first.values, second.values], 1),
            torch.cat([first.labels, second.labels]),
            torch.cat([first.indices, second.indices + len(train.entries)]),
        )
        labels = torch.from_numpy(train.labels())
        order, parts = in_turns(labels, run.recipe.seed), run.recipe.start.folds - 1
        own = torch.arange(len(train.entries), len(data.entries))
        turn = torch.empty(len(order), dtype=torch.long)
        turn[order] = torch.arange(len(order)) % parts
        if run.splits.units is not None:
            turn = _whole_units(turn, torch.from_numpy(run.splits.units.astype("int64")))
        return cls(data, features, (own, *((turn == part).nonzero().flatten() for part in range(parts))))

    def others(self, run: Stages) -> list[Stages]:
        """The parts but the first, which is the run itself."""
        every = torch.arange(len(self.data.entries))
        found = []
        for number, held in enumerate(self.held[1:], 2):
            out, seen = torch.isin(every, held), torch.isin(self.features.indices, held)
            given = self.features.at(~seen), self.features.at(seen)
            found.append(self._part(run, str(number), run.recipe, Splits(self._only(~out), self._only(out)), *given))
        return found

    def everything(self, run: Stages) -> Stages:
        """A run on all images. It is scored on those that the run holds out, at its end alone: it has learnt them."""
        epochs = run.recipe.schedule.epochs
        changes = {"schedule.eval_epochs": math.ceil(epochs)} if epochs else {}
        seen = torch.isin(self.features.indices, self.held[0])
        given = self.features, self.features.at(seen)
        return self._part(run, "all", override(run.recipe, changes), Splits(self.data, run.splits.val), *given)

    def _part(
        self, run: Stages, name: str, recipe: ClassificationRecipe, splits: Splits, train: Features, val: Features
    ) -> Stages:
        frozen, header = run.frozen()
        origin = {key: header[key] for key in ORIGIN if key in header}
        options = run.options.model_copy(update={"out": str(run.out / "folds" / name)})
        given = Given(frozen, origin, train, val)
        return type(run)(recipe, splits, options, run.device, run.world, None, given)

    def _only(self, which: torch.Tensor) -> Dataset:
        entries = tuple(self.data.entries[i] for i in which.nonzero().flatten().tolist())
        return Dataset(self.data.classes, entries, self.data.store)


def _whole_units(turn: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """(N,) parts of images, of which those of one unit, but 0, are all in the part of its first."""
    found, first = turn.clone(), dict[int, int]()
    for place in units.nonzero().flatten().tolist():
        found[place] = first.setdefault(int(units[place]), int(turn[place]))
    return found


def _last(part: Stages) -> Tensors:
    """The weights after the last step, the EMA ones where there are some: not chosen by the images that will judge them."""
    tensors, _ = checkpoint.read(part.out / LAST)
    return checkpoint.of("ema", tensors) or checkpoint.of("model", tensors)
