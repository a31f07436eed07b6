"""The file of sentence-transformers that says how an encoder's token states become a sentence embedding."""

from __future__ import annotations

from pathlib import Path

from loralet.atomic import write_json
from loralet.errors import CheckpointError
from loralet.records import read_json, require_files

FILE = "1_Pooling/config.json"
MEAN = "pooling_mode_mean_tokens"


def pools_mean(folder: Path) -> bool:
    """Whether an encoder was trained for the mean over its tokens. Without the file, it was not.

    Args:
        folder: the checkpoint.

    Raises:
        CheckpointError: the file is not a JSON object, or a named pipe or the like.
    """
    path = folder / FILE
    require_files(path.parent, CheckpointError)
    try:
        config = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); copy the folder again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object; copy the folder again")
    return config.get(MEAN) is True or config.get("pooling_mode") == "mean"


def write_mean_pooling(folder: Path, width: int) -> None:
    """Write the file for an encoder that was trained for the mean over its tokens.

    Args:
        folder: the checkpoint.
        width: width of its states.
    """
    (folder / FILE).parent.mkdir(exist_ok=True)
    write_json(folder / FILE, {"word_embedding_dimension": width, "pooling_mode_cls_token": False, MEAN: True})
