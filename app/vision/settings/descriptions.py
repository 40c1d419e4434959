"""What each field of a training run means, in the words of the API's documentation and of both terminals."""

MEANINGS = {
    "backbone": "The pretrained network.",
    "epochs": "Passes over the training images; 40 for the head, else 12.",
    "batch_size": "Images a step. auto: the largest power of two up to 256 that fits into memory. 32 if left out.",
    "optimizer": "What follows the gradients; sgd does with Nesterov's momentum.",
    "learning_rate": "Its peak, after the warm-up. If left out it suits the optimizer and what learns.",
    "schedule": "How the learning rate goes down after the warm-up.",
    "weight_decay": "How weights are drawn towards zero, all but biases and norms. If left out it suits the optimizer "
    "and what learns.",
    "augmentation": "Random changes of the training images: a preset, or a list of transforms, each once. none for the "
    "head, else light.",
    "input_size": "Side of the square that the network sees, 32 to 1,024 pixels; the backbone's own if left out.",
    "seed": "The same seed, data and machine give the same model.",
    "warmup": "Share of the steps in which the learning rate climbs to its peak; one_cycle has its own climb.",
    "layer_decay": "Each stage learns at this fraction of the rate of the one above it.",
    "unfreeze_every": "Begin with the head; one more stage learns after each so many epochs. 0: all from the start.",
    "accumulate": "Batches whose gradients make one step.",
    "clip_norm": "Longest gradient that a step follows; 0: any.",
    "l1": "Each step takes this times the rate off every weight, which makes some of them zero.",
    "label_smoothing": "Share of a target that is spread over all classes; 0.1 is usual.",
    "patience": "Stop after so many epochs without a better one; 0: never.",
    "ema": "Decay of a moving average of the weights, which is then evaluated and kept; 0: none.",
    "imbalance": "Make up for rare classes: by weights in the loss, or by showing them more often (sampling).",
    "focal_gamma": "How much less samples count that are already right (focal loss); 2 is usual.",
    "mixup": "Alpha of the mixture of two samples; 0.2 is usual, 0: none.",
    "cutmix": "Alpha of the area that one image lends another; 1 is usual, 0: none. Not behind a frozen trunk.",
    "precision": "Of the trunk while it trains. auto: bfloat16 where the processor has it. float16 scales the loss and "
    "needs a GPU.",
    "loader_workers": "Threads that read and augment batches ahead; the model does not depend on them.",
    "find_rate": "Try a hundred rates first, and train at the one they suggest.",
    "compile": "Compile what learns (torch.compile). Where there is no compiler it runs as ever, and notes say so.",
    "on_out_of_memory": "Where a batch does not fit: fail with the size that would, or shrink the parts it is computed "
    "in, whose gradients add up to the same.",
    "views": "Augmented copies of each training image behind a frozen trunk; epochs take turns with them.",
    "target_precision": "Of the answers that are to be accepted, 0.5 to 0.9999; validation sets the thresholds.",
    "head.hidden": "Units of the ReLU layers before the last one; none: a linear head.",
    "head.dropout": "Share of what goes into each layer of the head that a step leaves out.",
    "head.pooling": "How each of the trunk's maps becomes one feature; gem is the generalised mean.",
}
