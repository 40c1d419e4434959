"""Every hyper-parameter of a training run, each written once: type, default, bounds, choices, meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.vision.settings.defaults import OWN_INPUT_SIZE, always, by_optimizer, head_else, unless_searched
from app.vision.settings.hyper_parameter import Derived, hyper
from app.vision.settings.presets import PresetName, Transform

Train = Literal["head", "last_stages", "all"]
OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "step", "cosine", "exponential", "one_cycle", "plateau"]
Augmentation = PresetName | tuple[Transform, ...]
Pooling = Literal["avg", "max", "gem"]
Imbalance = Literal["none", "weights", "sampling"]
OnOutOfMemory = Literal["fail", "shrink"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

STAGES_LEARN = {"train": ("last_stages", "all")}


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The grafted head: linear, or ReLU layers of `hidden` units before it, `dropout` in front of each linear layer.

    `pooling` makes one feature of each of the trunk's maps: its mean, its maximum, or a generalised mean between them.
    """

    hidden: tuple[int, ...] = hyper(
        (),
        "Units of the ReLU layers before the last one; none: a linear head.",
        at_least=1,
        at_most=8192,
        most_values=4,
        log=True,
    )
    dropout: float = hyper(
        0.0, "Share of what goes into each layer of the head that a step leaves out.", at_least=0, at_most=0.95
    )
    pooling: Pooling = hyper("avg", "How each of the trunk's maps becomes one feature; gem is the generalised mean.")


@dataclass(frozen=True, slots=True)
class TrainFields:
    """The fields of `TrainConfig`. None stands for a default that depends on other fields.

    A field is written here and nowhere else: the checks, the options of both commands, the API's schema and the
    guide's table are made from it. A model's file holds the fields in this order.
    """

    backbone: str = field(metadata={"meaning": "The pretrained network."})
    train: Train = hyper(
        "head",
        "What learns: the head alone, the last stages of the trunk with it, or all.",
        details="A head alone takes seconds where the rest takes minutes.",
    )
    last_stages: int = hyper(
        1,
        "How many stages of the trunk learn, counted from the head down.",
        at_least=1,
        only_with={"train": ("last_stages",)},
    )
    head: HeadConfig = field(default_factory=HeadConfig)
    epochs: int | None = hyper(
        None, "Passes over the training images.", at_least=1, at_most=10_000, if_left_out=head_else(40, 12)
    )
    batch_size: int | Literal["auto"] | None = hyper(
        None,
        "Images a step. auto: the largest power of two up to 256 that fits into memory.",
        details="It is found by trying, and leaves 8 steps an epoch; a resumed run keeps it.",
        at_least=1,
        at_most=4096,
        if_left_out=always(32),
        log=True,
    )
    optimizer: OptimizerName = hyper("adamw", "The optimizer that follows the gradients; sgd has Nesterov's momentum.")
    learning_rate: float | None = hyper(
        None,
        "Peak of the learning rate, after the warm-up.",
        above=0,
        at_most=10,
        # Plain SGD takes about thirty times the step of Adam for the same progress.
        if_left_out=unless_searched(by_optimizer({"sgd": (0.03, 0.01), "adam": (2e-3, 3e-4), "adamw": (2e-3, 3e-4)})),
        log=True,
    )
    schedule: Schedule = hyper(
        "cosine",
        "How the learning rate goes down after the warm-up.",
        details="exponential: to a hundredth. step: to a tenth after a half, and again after three quarters. plateau:"
        " to a tenth after 3 epochs without a lower validation loss.",
    )
    weight_decay: float | None = hyper(
        None,
        "How strongly weights are drawn towards zero, all but biases and norms.",
        at_least=0,
        at_most=100,
        if_left_out=by_optimizer({"sgd": (1e-4, 1e-4), "adam": (0.0, 0.0), "adamw": (1.0, 0.05)}),
        log=True,
    )
    augmentation: Augmentation | None = hyper(
        None,
        "Random changes of the training images: a preset, or a list of transforms, each once.",
        details="light has no flips.",
        if_left_out=head_else("none", "light"),
    )
    input_size: int | None = hyper(
        None,
        "Side of the square that the network sees, in pixels.",
        # A VGG halves its input five times; below 32 nothing is left to pool, and a ResNet sees too little anyway.
        at_least=32,
        at_most=1024,
        if_left_out=OWN_INPUT_SIZE,
    )
    seed: int = hyper(0, "The same seed, data and machine give the same model.", at_least=0, at_most=2**32 - 1)
    warmup: float = hyper(
        0.05,
        "Share of the steps in which the learning rate climbs to its peak; one_cycle has its own climb.",
        at_least=0,
        at_most=0.5,
    )
    layer_decay: float = hyper(
        1.0,
        "Each stage learns at this fraction of the rate of the one above it.",
        above=0,
        at_most=1,
        only_with=STAGES_LEARN,
    )
    unfreeze_every: int = hyper(
        0,
        "Begin with the head; one more stage learns after each so many epochs. 0: all from the start.",
        at_least=0,
        at_most=10_000,
        only_with=STAGES_LEARN,
    )
    accumulate: int = hyper(
        1,
        "Batches whose gradients make one step.",
        details="Their gradient is that of one batch as large as all of them.",
        at_least=1,
        at_most=1024,
    )
    clip_norm: float = hyper(0.0, "Longest gradient that a step follows; 0: any.", at_least=0, at_most=1000, log=True)
    l1: float = hyper(
        0.0,
        "Each step takes this times the rate off every weight, which makes some of them zero.",
        at_least=0,
        at_most=1,
        log=True,
    )
    label_smoothing: float = hyper(
        0.0, "Share of a target that is spread over all classes; 0.1 is usual.", at_least=0, at_most=0.9
    )
    patience: int = hyper(0, "Stop after so many epochs without a better one; 0: never.", at_least=0, at_most=10_000)
    ema: float = hyper(
        0.0,
        "Decay of a moving average of the weights, which is then evaluated and kept; 0: none.",
        at_least=0,
        at_most=0.9999,
    )
    imbalance: Imbalance = hyper(
        "none", "Make up for rare classes: by weights in the loss, or by showing them more often (sampling)."
    )
    focal_gamma: float = hyper(
        0.0,
        "How much less samples count that are already right (focal loss); 2 is usual.",
        at_least=0,
        at_most=10,
    )
    mixup: float = hyper(0.0, "Alpha of the mixture of two samples; 0.2 is usual, 0: none.", at_least=0, at_most=10)
    cutmix: float = hyper(
        0.0,
        "Alpha of the area that one image lends another; 1 is usual, 0: none. Not behind a frozen trunk.",
        at_least=0,
        at_most=10,
        only_with=STAGES_LEARN,
    )
    precision: Precision = hyper(
        "auto",
        "Number format of the trunk while it trains. auto: bfloat16 where the processor has it. float16 scales the"
        " loss and needs a GPU.",
        details="The validation after each epoch has it too; the model's own figures are always float32.",
    )
    loader_workers: int = hyper(
        0,
        "Threads that read and augment batches ahead; the model does not depend on them.",
        details="They pay where a GPU computes and has no room for the images: those that take at most a quarter of"
        " its free memory lie in it.",
        at_least=0,
        at_most=64,
    )
    find_rate: bool = hyper(
        False,
        "Try a hundred rates first, and train at the one they suggest.",
        details="They climb from 0.000001 to 10, one a step.",
    )
    base_model: str | None = hyper(
        None,
        "The model to start from, in place of published weights: its trunk, input size and head layers, and its head's"
        " weights where the classes are the same.",
    )  # here it is the SHA-256 of the model's file
    compile: bool = hyper(
        False,
        "Compile what learns (torch.compile). Where there is no compiler it runs as ever, and notes say so.",
        details="Compiling takes minutes first. Without it a GPU runs what learns as CUDA graphs from the second epoch"
        " on, where there is memory for them.",
    )
    on_out_of_memory: OnOutOfMemory = hyper(
        "fail",
        "Where a batch does not fit: fail with the size that would, or shrink the parts it is computed in, whose"
        " gradients add up to the same.",
        details="Only batch norms that learn can tell the parts from the whole. shrink is for one process alone.",
    )
    views: int = hyper(
        4,
        "Augmented copies of each training image behind a frozen trunk; epochs take turns with them.",
        at_least=1,
        at_most=64,
        only_with={"train": ("head",)},
    )
    target_precision: float | None = hyper(
        None,
        "The precision that accepted answers are to have; validation sets the thresholds.",
        at_least=0.5,
        at_most=0.9999,  # certainty cannot be shown by any number of images
        if_left_out=Derived(lambda _: None, "answers are not judged"),
    )
