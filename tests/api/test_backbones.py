"""What can be fine-tuned, and whether this server has the weights for it."""

from pathlib import Path

from app.vision.backbones.catalogue import BACKBONES
from tests.support.services import OpenService, Service


def listed(api: Service) -> dict[str, dict[str, object]]:
    body = api.read.get("/v1/backbones").json()
    assert body["next_cursor"] is None
    return {item["name"]: item for item in body["items"]}


def test_every_backbone_is_described(shared: Service) -> None:
    found = listed(shared)
    assert list(found) == list(BACKBONES)
    for name, item in found.items():
        backbone = BACKBONES[name]
        for field in ("family", "depth", "parameters", "gflops", "input_size", "imagenet_top1", "stages", "advice"):
            assert item[field] == getattr(backbone, field)
        assert item["weights_file"] == backbone.weights_file


def test_weights_that_are_not_here_and_cannot_come_are_missing(shared: Service) -> None:
    found = listed(shared)
    assert found["resnet18-tiny64"]["weights"] == "bundled"
    assert {item["weights"] for name, item in found.items() if name != "resnet18-tiny64"} == {"missing"}
    assert [name for name, item in found.items() if item["default"]] == ["resnet18-tiny64"]


def test_weights_in_the_operators_folder_are_present_and_become_the_default(
    make_api: OpenService, tmp_path: Path
) -> None:
    folder = tmp_path / "weights-of-ours"
    folder.mkdir()
    (folder / BACKBONES["resnet18"].weights_file).write_bytes(b"weights")
    found = listed(make_api(weights_dir=folder))
    assert found["resnet18"]["weights"] == "present"
    assert found["resnet50"]["weights"] == "missing"
    assert [name for name, item in found.items() if item["default"]] == ["resnet18"]
