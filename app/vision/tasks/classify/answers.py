"""Makes a trained classifier's answers: probabilities, whether an image is unknown, and whether to accept the answer.

Importing this does not import torch, so that processes that compute nothing can name the tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.vision.tasks.classify.selective_prediction import Decision, select

if TYPE_CHECKING:
    from torch import Tensor

    from app.vision.networks.outputs import Outputs
    from app.vision.scores.ood import OodScorer
    from app.vision.tasks.task import Agreement, AnswerOptions

OOD_TENSORS = "novelty."  # begins the names of tensors in the model file that are not the network's

LEAST_AGREEMENT = 0.995  # share of held-out images to which engine and reference give the same label
MOST_ACCURACY_DROP = 0.005
MOST_UNKNOWN_SHIFT = 0.05  # how far the share of unknown images may lie from the reference's: INT8 rounds features


def output_tensors(classes: int) -> dict[str, tuple[str, list[int]]]:
    """Return the datatype and the shape of each tensor that a classifier gives; -1 stands for any number of images."""
    return {
        "probabilities": ("FP32", [-1, classes]),
        "labels": ("BYTES", [-1]),
        "decisions": ("BYTES", [-1]),
        "ood_score": ("FP32", [-1]),
    }


USUAL_TENSORS = ("probabilities", "labels")  # those of a call that names none
RANKED_TENSOR = "probabilities"  # the one whose highest values can be asked for


class ClassAnswer(NamedTuple):
    """Holds the probability of each class, float32 [C], and the OOD score of a model that has one."""

    probabilities: NDArray[np.float32]
    ood_score: float | None


class ClassAnswers:
    """Makes answers of logits and features.

    With `ood` it knows images that are like none the model was trained on; `thresholds` are the least probabilities at
    which each class is accepted, of a model that was trained towards a precision.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        temperature: float = 1.0,
        ood: OodScorer | None = None,
        thresholds: tuple[float | None, ...] | None = None,
    ) -> None:
        self.classes = classes
        self.temperature = temperature
        self.ood = ood
        self.thresholds = thresholds

    @classmethod
    def from_document(cls, document: Mapping[str, Any], tensors: dict[str, Tensor]) -> ClassAnswers:
        """Return what a model file describes, and take its tensors out of `tensors`."""
        from app.vision.scores.ood import OodScorer

        classes = tuple(str(name) for name in document["classes"])
        temperature = float(document.get("temperature", 1.0))  # models from before it was fitted have none
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature}")
        names = [name for name in tensors if name.startswith(OOD_TENSORS)]
        statistics = {name.removeprefix(OOD_TENSORS): tensors.pop(name) for name in names}
        # Models from before there was such a thing have neither; they answer as ever.
        ood = OodScorer.of_tensors(statistics, document["novelty"]) if document.get("novelty") else None
        decisions = document.get("decisions")
        thresholds = tuple(decisions["thresholds"][name] for name in classes) if decisions else None
        return cls(classes, temperature, ood, thresholds)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the statistics behind the OOD scores."""
        return self.ood.nbytes if self.ood else 0

    def answer(self, outputs: Outputs) -> list[ClassAnswer]:
        """Return one answer an image; raises FloatingPointError where a number in them is not finite."""
        import torch

        probabilities = to_probabilities(torch.from_numpy(outputs["logits"]), self.temperature)
        finite = bool(np.isfinite(probabilities).all())
        scores: Sequence[float | None] = [None] * len(probabilities)
        if self.ood is not None:
            found = self.ood.scores(torch.from_numpy(outputs["features"])).numpy()
            finite = finite and bool(np.isfinite(found).all())
            scores = found.tolist()
        if not finite:
            raise FloatingPointError("the model answers with numbers that are not finite")
        return [ClassAnswer(row, score) for row, score in zip(probabilities, scores, strict=True)]

    def decision(self, answer: ClassAnswer, thresholds: Sequence[float | None] | None) -> Decision | None:
        """Return what to do with an answer; see `select`."""
        best = int(answer.probabilities.argmax())
        return select(best, float(answer.probabilities[best]), answer.ood_score, thresholds)

    def describe(
        self, answer: ClassAnswer, options: AnswerOptions, thresholds: Sequence[float | None] | None
    ) -> dict[str, Any]:
        """Return the classes that the options ask for, most probable first, and the decision."""
        row, classes = answer.probabilities, self.classes
        wanted = [index for index in row.argsort()[::-1] if not options.classes or classes[index] in options.classes]
        named = [
            {"label": classes[index], "probability": float(row[index])}
            for index in wanted[: options.top_k]
            if row[index] >= options.threshold
        ]
        everything = options.probabilities == "all"
        return {
            "decision": self.decision(answer, thresholds),
            "ood_score": answer.ood_score,
            "predictions": named,
            "probabilities": dict(zip(classes, row.tolist(), strict=True)) if everything else None,
        }

    def text(self, described: Mapping[str, Any]) -> str:
        """Return the named classes with their probabilities, and the decision if there is one."""
        said = ", ".join(f"{one['label']} {one['probability']:.4f}" for one in described["predictions"])
        return said + (f"  {described['decision']}" if described["decision"] else "")

    def line(self, described: Mapping[str, Any], image: str) -> str:
        """Return the same as one line of JSON."""
        named = [{"class": one["label"], "probability": one["probability"]} for one in described["predictions"]]
        found = {"image": image, "decision": described["decision"], "ood_score": described["ood_score"]}
        return json.dumps(found | {"predictions": named})

    def tensor(
        self, name: str, answers: Sequence[ClassAnswer], thresholds: Sequence[float | None] | None
    ) -> NDArray[np.float32] | list[str]:
        """Return one of `output_tensors`; decisions are empty texts where a model has none.

        Raises LookupError for the OOD scores of a model without.
        """
        if name == "labels":
            return [self.classes[int(one.probabilities.argmax())] for one in answers]
        if name == "decisions":
            return [self.decision(one, thresholds) or "" for one in answers]
        if name == "ood_score":
            if self.ood is None:
                raise LookupError("the model does not know images that are unlike those it was trained on")
            return np.array([one.ood_score for one in answers], dtype=np.float32)
        return np.stack([one.probabilities for one in answers])

    def agreement(self, outputs: Outputs, reference: Outputs, labels: NDArray[np.int64]) -> Agreement:
        """Compare labels, accuracy and the share of unknown images on held-out images with the reference's."""
        from app.vision.tasks.task import Agreement

        answered, expected = outputs["logits"].argmax(axis=1), reference["logits"].argmax(axis=1)
        same = float((answered == expected).mean())
        drop = (int((expected == labels).sum()) - int((answered == labels).sum())) / len(labels)
        shift = None if self.ood is None else self._unknown(outputs) - self._unknown(reference)
        detail = None
        if same < LEAST_AGREEMENT:
            detail = f"It labels {same:.2%} of the images as the reference does, less than {LEAST_AGREEMENT:.1%}."
        elif drop > MOST_ACCURACY_DROP:
            detail = f"Its accuracy is {drop:.2%} lower than the reference's, more than {MOST_ACCURACY_DROP:.1%}."
        elif shift is not None and abs(shift) > MOST_UNKNOWN_SHIFT:
            detail = (
                f"It calls {abs(shift):.2%} {'more' if shift > 0 else 'fewer'} of the images unknown than the reference"
                f" does, and {MOST_UNKNOWN_SHIFT:.0%} is the most."
            )
        return Agreement(same, detail, drop, shift)

    def _unknown(self, outputs: Outputs) -> float:
        import torch

        assert self.ood is not None
        return float((self.ood.scores(torch.from_numpy(outputs["features"])) > 1).float().mean())


def to_probabilities(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the softmax of logits / temperature over the last axis, float32."""
    probabilities: NDArray[np.float32] = (logits.float() / temperature).softmax(dim=-1).cpu().numpy()
    return probabilities
