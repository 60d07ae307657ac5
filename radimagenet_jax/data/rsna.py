"""What the downloads of RSNA's challenges share: DICOM files by their ids, and one table."""

from collections.abc import Mapping
from pathlib import Path

from radimagenet_jax.data.source_files import SourceFile, list_files, one_of_equals
from radimagenet_jax.errors import DataError


def table_and_images(
    root: Path, table: str, images: str, hidden: str, instructions: str
) -> tuple[SourceFile, Mapping[str, list[SourceFile]]]:
    """Finds a challenge's table of labels and its images, packed or unpacked.

    Args:
      root: The folder of the data set's manual downloads.
      table: File name of the table.
      images: Name of the folder of the images, for the message.
      hidden: Name of the folder of the challenge's own test images, which have no labels.
      instructions: What to download, for the message.

    Returns:
      The table, and the files of each image by its id, which is its name without suffix.

    Raises:
      DataError: If either is missing, or several tables differ.
    """
    files = list_files(root)
    by_id: dict[str, list[SourceFile]] = {}
    for file in files:
        if file.path.suffix.lower() == ".dcm" and hidden not in file.path.parts:
            by_id.setdefault(file.path.stem, []).append(file)
    found = [file for file in files if file.name == table]
    if not by_id or not found:
        missing = table if by_id else f"{images}/*.dcm"
        raise DataError(f"{root} has no {missing}; {instructions}.")
    return one_of_equals(found, table), by_id
