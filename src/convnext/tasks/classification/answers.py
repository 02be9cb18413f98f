"""What a network answers to labelled images, and the outcomes that follow from it. No torch here.

Axes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convnext.tasks.classification.calibration import Floats, log_softmax
from convnext.tasks.classification.metrics import Outcomes


@dataclass(frozen=True)
class Answers:
    """One row an image."""

    index: NDArray[np.int64]  # (N,) into the dataset's entries
    label: NDArray[np.int64]  # (N,)
    logits: NDArray[np.float32]  # (N, K)

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def join(parts: Sequence["Answers"]) -> "Answers":
        """All parts as one, in dataset order, each image once."""
        index = np.concatenate([part.index for part in parts])
        _, order = np.unique(index, return_index=True)
        columns = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("label", "logits"))
        return Answers(index[order], *columns)

    def outcomes(self, log_scores: Floats | None = None) -> Outcomes:
        """Who is right by the logits, and how sure by the (N, K) logarithms of scores; None: those of the softmax."""
        log_p = log_softmax(self.logits)
        found = Outcomes.of(np.exp(log_p).astype(np.float32), log_p.astype(np.float32), self.label, self.index)
        return found if log_scores is None else rescored(found, log_scores)


def rescored(found: Outcomes, log_scores: Floats) -> Outcomes:
    """The same answers with other scores: (N, K) logarithms, in which the order of the classes is that of before."""
    rows = np.arange(len(found))
    true = log_scores[rows, found.label]
    score = np.exp(log_scores[rows, found.predicted]).astype(np.float32)
    own, loss = np.exp(true).astype(np.float32), (-true).astype(np.float32)
    return replace(found, score=score, label_score=own, loss=loss)
