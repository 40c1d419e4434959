"""Augmentation presets by name, and lists of named transforms with parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.vision.errors import InvalidConfig
from app.vision.settings.bounds import check_number

PresetName = Literal["none", "light", "standard", "strong"]


@dataclass(frozen=True, slots=True)
class Transform:
    """One entry of an augmentation list; parameters that are left out have the values of `Parameter.default`."""

    name: str
    parameters: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        """Return the transform that {"name": …, parameter: value, …} says; raise InvalidConfig for anything else."""
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            raise InvalidConfig("augmentation", f"{data!r} is no transform; use one like {{'name': 'flip'}}.")
        return cls(data["name"], {key: value for key, value in data.items() if key != "name"})

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads."""
        return {"name": self.name, **self.parameters}


@dataclass(frozen=True, slots=True)
class Preset:
    """The strength of each random change. Colour factors are drawn from 1 ± the number given."""

    min_area: float  # smallest share of the picture that a crop keeps
    max_stretch: float  # largest ratio between the crop's sides
    flip: float  # probability of a mirror image
    degrees: float  # largest rotation either way
    brightness: float
    contrast: float
    saturation: float
    erase: float = 0.0  # probability that a rectangle is blanked (Zhong et al. 2020, arXiv:1708.04896)


PRESETS: dict[PresetName, Preset] = {
    # "light" keeps left and right apart, so that it is safe for digits, text and road signs.
    "light": Preset(0.75, 1.1, 0.0, 5.0, 0.1, 0.1, 0.1),
    "standard": Preset(0.5, 1.2, 0.5, 10.0, 0.2, 0.2, 0.2),
    "strong": Preset(0.3, 4 / 3, 0.5, 20.0, 0.4, 0.4, 0.4, 0.25),
}
UNCHANGED = Preset(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A transform's parameter: the field of `Preset` it sets, and its bounds."""

    sets: str
    low: float
    high: float

    @property
    def default(self) -> float:
        """Return the value of "standard", or of "strong" for what "standard" does not do."""
        return float(getattr(PRESETS["standard"], self.sets) or getattr(PRESETS["strong"], self.sets))


TRANSFORMS: dict[str, dict[str, Parameter]] = {
    "crop": {"min_area": Parameter("min_area", 0.05, 1.0), "max_stretch": Parameter("max_stretch", 1.0, 2.0)},
    "flip": {"probability": Parameter("flip", 0.0, 1.0)},
    "rotate": {"degrees": Parameter("degrees", 0.0, 180.0)},
    "color": {
        "brightness": Parameter("brightness", 0.0, 1.0),
        "contrast": Parameter("contrast", 0.0, 1.0),
        "saturation": Parameter("saturation", 0.0, 1.0),
    },
    "erase": {"probability": Parameter("erase", 0.0, 1.0)},
}


def preset_of(augmentation: PresetName | Sequence[Transform]) -> Preset | None:
    """Return what an augmentation comes to, None where nothing is changed; raise InvalidConfig for a bad transform.

    Whatever the order of the list, crops, flips and rotations are one resampling, then colours, then erasing.
    """
    if isinstance(augmentation, str):
        return PRESETS.get(augmentation)
    names = [transform.name for transform in augmentation]
    if not names:
        raise InvalidConfig("augmentation", 'an empty list; use "none".')
    preset = UNCHANGED
    for transform in augmentation:
        known = TRANSFORMS.get(transform.name)
        if known is None:
            raise InvalidConfig(
                "augmentation", f"{transform.name!r} is not a transform; use one of {', '.join(TRANSFORMS)}."
            )
        if names.count(transform.name) > 1:
            raise InvalidConfig("augmentation", f"{transform.name!r} is there twice; name each transform once.")
        if stray := sorted(set(transform.parameters) - set(known)):
            raise InvalidConfig(
                "augmentation", f"{transform.name} has no {stray[0]!r}; it has {', '.join(sorted(known))}."
            )
        values = {name: transform.parameters.get(name, parameter.default) for name, parameter in known.items()}
        for name, parameter in known.items():
            check_number(
                f"augmentation.{transform.name}.{name}", values[name], at_least=parameter.low, at_most=parameter.high
            )
        preset = replace(preset, **{known[name].sets: value for name, value in values.items()})
    return preset
