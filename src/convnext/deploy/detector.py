"""A detector as its users see it: boxes, masks and class names out, in pixels of the images as they came. No torch here."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from convnext.config import DetectionRecipe
from convnext.data.dataset import DenseDataset
from convnext.data.source import Source
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage, Read
from convnext.deploy.prediction import DetectionPrediction
from convnext.deploy.predictor import Predictor, require_top
from convnext.tasks.detection.found import Found
from convnext.tasks.detection.metrics import Outcomes
from convnext.tasks.opening import scored_source
from convnext.tasks.result import Evaluation

SHOWN = 0.5  # least score of what is shown, unless one asks for another


class DetectionPredictor(Predictor[DetectionPrediction]):
    """A trained detector of boxes, and of masks where it was trained on them."""

    recipe: DetectionRecipe

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's number of each class."""
        return tuple(self.metadata.get("category_ids") or range(1, len(self.classes) + 1))

    def __call__(
        self, image: OneImage, *, top: int | None = None, score: float = SHOWN, channel_order: ChannelOrder = "rgb"
    ) -> DetectionPrediction:
        """As for every predictor; only objects with at least this `score`."""
        return self._one(image, channel_order, partial(self.answers, top=top, score=score))

    def predict(
        self,
        images: ManyImages,
        *,
        top: int | None = None,
        score: float = SHOWN,
        channel_order: ChannelOrder = "rgb",
        workers: int = 0,
        skipped: dict[str, str] | None = None,
    ) -> Iterator[DetectionPrediction]:
        """As for every predictor; only objects with at least this `score`."""
        return self._many(images, channel_order, workers, skipped, partial(self.answers, top=top, score=score))

    def evaluate(
        self,
        data: str | Path,
        part: str | None = None,
        *,
        images: str | Path | None = None,
        form: str | None = None,
        workers: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """Average precision of boxes and masks, as for every predictor.

        `images`: where they are, if not beside the annotations; `form`: of the annotations, if not recognised.
        """
        source = scored_source(data, self.recipe.task, images=images, form=form)
        return self._evaluated(source, part, workers=workers, progress=progress).without("details")

    @abstractmethod
    def _evaluated(self, source: Source, part: str | None, *, workers: int, progress: bool) -> Evaluation:
        """The scores on the images of recognised data."""

    @abstractmethod
    def outcomes(self, dataset: DenseDataset, *, workers: int = 0, skipped: dict[str, str] | None = None) -> Outcomes:
        """What the network finds in every readable image of an annotated dataset; broken ones go into `skipped`."""

    @abstractmethod
    def _found(self, read: Sequence[Read]) -> Iterable[Found]:
        """Everything that the network finds in each image."""

    def answers(
        self, read: Sequence[Read], *, top: int | None = None, score: float = SHOWN
    ) -> Iterable[DetectionPrediction]:
        require_top(top)
        for one, whole in zip(read, self._found(read), strict=True):
            found = whole.above(score)
            yield self._prediction(one, found.first(top or len(found)))

    def _prediction(self, read: Read, found: Found) -> DetectionPrediction:
        names = dict(zip(self.category_ids, self.classes, strict=True))
        rows = ({**row, "file_name": found.path} for row in found.rows(self.category_ids))
        return DetectionPrediction(
            given=read.given,
            image_id=read.image_id,
            size=read.size,
            frames=read.frames,
            classes=self.classes,
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
            outlines=found.masks,
            rows=tuple({**row, "category": names[row["category_id"]]} for row in rows),
        )
