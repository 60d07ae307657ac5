"""What the downloads of RSNA's challenges share: DICOM files by their ids, and one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from radimagenet_jax.data.fold_builder import Downloads
from radimagenet_jax.data.source_files import SourceFile, grouped, named


@dataclass(frozen=True)
class Challenge:
    """A challenge's table of labels, and the files of each image by its id."""

    table: SourceFile
    images: Mapping[str, Sequence[SourceFile]]


def find_challenge(downloads: Downloads, *, table: str, images: str, hidden: str) -> Challenge:
    """Finds a challenge's table of labels and its images, packed or unpacked.

    Args:
      downloads: What the data set's folder holds.
      table: File name of the table.
      images: Name of the folder of the images, for the message.
      hidden: Name of the folder of the challenge's own test images, which have no labels.

    Raises:
      DataError: If either is missing, or several tables differ.
    """

    def image_id(file: SourceFile) -> str | None:
        is_ours = file.path.suffix.lower() == ".dcm" and hidden not in file.path.parts
        return file.path.stem if is_ours else None

    by_id = grouped(downloads.files, image_id)
    found = named(downloads.files, table) if by_id else None
    if found is None:
        raise downloads.missing(table if by_id else f"{images}/*.dcm")
    return Challenge(found, by_id)
