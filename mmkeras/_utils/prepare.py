"""Prepares a dataset of TensorFlow Datasets on first use."""

import contextlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmkeras._utils import disk, terminal

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

CHOICE = "data_dir or the environment variable TFDS_DATA_DIR"


def prepared(create: Callable[[], "tfds.core.DatasetBuilder"]) -> "tfds.core.DatasetBuilder":
    """The builder of a dataset, which is downloaded and prepared unless it is on disk.

    Two processes may do so at the same time. TFDS renames the folder of a complete dataset, so the second to
    finish uses the first one's.

    Args:
        create: () → builder.

    Raises:
        OSError: if the disk is full, or the folder of the datasets cannot be written to.
    """
    builder = create()
    folder, is_complete = builder.data_dir_root, builder.data_path.exists
    if "://" not in str(folder) and not is_complete():
        disk.check_writable(folder, CHOICE)
    try:
        with disk.clear_errors(builder.info.full_name, folder, CHOICE):
            builder.download_and_prepare()
    except OSError:
        if not is_complete():
            raise
        builder = create()  # reads what the other process has prepared
    return builder


def generated(create: Callable[[], "tfds.core.DatasetBuilder"]) -> "tfds.core.DatasetBuilder":
    """As `prepared`, for a builder of this package, which generates its examples and shows its own progress.

    Args:
        create: () → builder.

    Raises:
        OSError: as `prepared`.
    """
    import tensorflow_datasets as tfds

    def quietly():
        with terminal.quiet_log("absl", "Using custom data configuration"):  # TFDS warns of an unlisted config
            return create()

    tfds.display_progress_bar(False)  # it shows a bar for each shard; ours is one for all examples
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return prepared(quietly)
    finally:
        tfds.display_progress_bar(True)
