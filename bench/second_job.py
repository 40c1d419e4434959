"""Compare a frozen-trunk training whose images and features are cached with the first one that put them there.

Both are timed end to end, from reading the weights to the model file, and must give the same model to the bit.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from app.vision.data.imagefolder import read_image_folder
from app.vision.data.rowcache import RowCache
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from bench.inputs import Quiet, image_folder, weights_file
from bench.rounds import alternate, arguments, clock, compared, emit, spread


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--views", type=int, default=1, help="augmented copies of each image; 1 is none")
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    weights = weights_file(options.backbone, options.weights)
    models: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        samples, classes = read_image_folder(image_folder(options.data, Path(scratch)))
        drawn: dict[str, Any] = {"views": options.views, "augmentation": "none" if options.views == 1 else "standard"}
        config = TrainConfig(options.backbone, epochs=options.epochs, input_size=options.size, **drawn)

        def job(number: int) -> float:
            cache = RowCache(Path(scratch) / f"cache-{number}", 2**33)
            train = partial(fit, config, samples, classes, weights=weights, observer=Quiet(), cache=cache)

            def run() -> None:
                with tempfile.TemporaryDirectory(dir=scratch) as workdir:
                    result = train(workdir=Path(workdir))
                    models.add(hashlib.sha256(result.model_path.read_bytes()).hexdigest())

            return clock(run)

        first, second = alternate(job, job, options.rounds)
    emit(
        "second_job",
        **compared(first, second),
        views=options.views,
        first_s=spread(first),
        second_s=spread(second),
        same_model=len(models) == 1,
        backbone=options.backbone,
        input_size=options.size,
        images=len(samples),
        epochs=options.epochs,
        rounds=options.rounds,
    )
    if len(models) > 1:
        raise SystemExit("the models differ: the cache changes what is learnt")


if __name__ == "__main__":
    main()
