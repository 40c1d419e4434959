"""This module reads the operator's limits on archives and images from the settings."""

from app.core.settings import Settings
from app.datasets.formats.archive import ArchiveLimits
from app.datasets.intake.intake import IntakeLimits


def archive_limits(settings: Settings) -> ArchiveLimits:
    return ArchiveLimits(
        max_entries=settings.max_archive_entries,
        max_file_bytes=settings.max_file_bytes,
        max_total_bytes=settings.max_expanded_bytes,
        max_ratio=settings.max_expansion_ratio,
    )


def intake_limits(settings: Settings) -> IntakeLimits:
    return IntakeLimits(max_pixels=settings.max_image_pixels, cpu_seconds=settings.max_image_cpu_seconds)
