"""What is imported with the networks: no compiler, until somebody compiles."""

import subprocess
import sys

from tests.support.images import REPOSITORY

TRAINS = """
import sys, tempfile
from pathlib import Path
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from tests.support.pictures import CLASSES, Recorder, make_samples
from tests.support.runs import WEIGHTS
with tempfile.TemporaryDirectory() as folder:
    samples = make_samples(Path(folder), train=2, val=1, test=1)
    config = TrainConfig("resnet18-tiny64", epochs=1, input_size=32, train="all", augmentation="light")
    fit(config, samples, CLASSES, weights=WEIGHTS, workdir=Path(folder) / "run", observer=Recorder())
"""

LOADED = "print('torch._dynamo.eval_frame' in sys.modules)"

COMPILES = """
import sys, torch
from app.vision.backbones.torchvision_models import get_model
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
optimizer.step()
compiled = torch.compile(get_model("resnet18", weights=None).eval(), backend="eager")
print(tuple(compiled(torch.zeros(1, 3, 32, 32)).shape), type(sys.modules["torch._dynamo"]).__name__)
"""


def printed(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_training_loads_no_compiler() -> None:
    """It would take longer than all of torch and torchvision, at each start of the API and of each job's process."""
    assert printed(TRAINS + LOADED) == "False"


def test_compiling_finds_the_compiler() -> None:
    assert printed(COMPILES) == "(1, 1000) module"


def test_whatever_else_is_asked_of_it_is_answered_by_the_compiler() -> None:
    """But who walks through all modules asks nothing."""
    walk = "import sys, inspect, app.vision.backbones.torchvision_models; inspect.getmodule(inspect.currentframe());"
    asks = ";from torch._dynamo.utils import counters; import torch._dynamo.config;"
    assert printed(walk + LOADED + asks + LOADED).split() == ["False", "True"]


def test_torchvision_still_gets_its_answer() -> None:
    program = (
        "import sys, app.vision.backbones.torchvision_models; asked = sys.modules['torchvision.ops.roi_align'];"
        "found = asked.is_compile_supported('cpu'); from torch._dynamo.utils import is_compile_supported as real;"
        "print(found == real('cpu'), real is not asked.is_compile_supported)"
    )
    assert printed(program) == "True True"
