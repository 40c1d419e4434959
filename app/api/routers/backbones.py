"""List the backbones that can be fine-tuned, with advice on when to choose each."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.deps import Reader, ServicesDep
from app.api.routes import Route
from app.api.views import ListOut, problems
from app.vision.backbones.catalogue import BACKBONES
from app.vision.backbones.weights import default_backbone

router = APIRouter(prefix="/v1/backbones", tags=["backbones"], route_class=Route)


class BackboneOut(BaseModel):
    name: str
    family: str
    depth: int = Field(description="Layers with weights.")
    parameters: int = Field(description="Number of parameters with the 1,000-class ImageNet head.")
    gflops: float = Field(description="Multiply-adds of one image at the published input size, in billions.")
    input_size: int = Field(description="Recommended side of the square input in pixels.")
    imagenet_top1: float | None = Field(description="Published ImageNet-1K accuracy in per cent.")
    imagenet_top5: float | None
    stages: int = Field(description="Number of stages; the highest value of `last_stages`.")
    weights_file: str
    weights: Literal["bundled", "present", "downloadable", "missing"]
    default: bool = Field(description="True for the backbone that `auto` means on this server.")
    advice: str


@router.get("", responses=problems(), summary="List backbones")
def list_backbones(_: Reader, services: ServicesDep) -> ListOut[BackboneOut]:
    """List all backbones, within a family from light to heavy. `weights` says whether a job can use one: `downloadable`
    weights are fetched when a job first needs them, and `missing` ones must be put into `GRAFT_WEIGHTS_DIR`."""
    default = default_backbone(services.weights)
    items = [
        BackboneOut(
            **{name: getattr(backbone, name) for name in BackboneOut.model_fields if hasattr(backbone, name)},
            weights=services.weights.status(backbone),
            default=backbone.name == default,
        )
        for backbone in BACKBONES.values()
    ]
    return ListOut(items=items)
