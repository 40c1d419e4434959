"""The schema of an augmentation: a preset's name, or a list of transforms."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.vision.errors import InvalidConfig
from app.vision.settings.presets import TRANSFORMS, PresetName, Transform, preset_of

PARAMETERS = "; ".join(f"{name}: {', '.join(parameters)}" for name, parameters in TRANSFORMS.items())


class AugmentationStep(BaseModel):
    """A transform by name, with parameters."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "description": f"A transform by name. {PARAMETERS}. Parameters that are left out have the values of "
            "`standard`.",
            "examples": [{"name": "rotate", "degrees": 15}],
        },
    )
    __pydantic_extra__: dict[str, float] = Field(init=False)

    name: str


def _check_augmentation(value: Any) -> Any:
    names = get_args(PresetName)
    if value is None or (isinstance(value, str) and value in names):
        return value
    if not isinstance(value, list):
        known = ", ".join(f"'{name}'" for name in names)
        raise ValueError(f"{value!r} is not known; use one of {known}, or a list of transforms")
    try:
        preset_of([Transform.from_dict(entry) for entry in value])
    except InvalidConfig as error:
        raise ValueError(str(error).removeprefix("augmentation: ").rstrip(".")) from None
    return value


Steps = Annotated[list[AugmentationStep], Field(max_length=32)]
Augmentation = Annotated[
    PresetName | Steps | None,
    BeforeValidator(_check_augmentation),
    Field(examples=["standard", [{"name": "crop", "min_area": 0.6}, {"name": "rotate", "degrees": 15}]]),
]
