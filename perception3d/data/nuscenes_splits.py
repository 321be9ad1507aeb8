"""Which scenes belong to which split: the devkit's lists, and `splits.json` beside the tables."""

import difflib
import json
from pathlib import Path

from perception3d.errors import UserError

# The evaluator refuses these splits on any other version (nutonomy/nuscenes-devkit: loaders.py).
VERSION_OF_SPLIT = {
    "train": "trainval",
    "val": "trainval",
    "train_detect": "trainval",
    "train_track": "trainval",
    "mini_train": "mini",
    "mini_val": "mini",
    "test": "test",
}
DEFAULT_SPLITS = {
    "trainval": ("train", "val"),
    "mini": ("mini_train", "mini_val"),
    "test": ("test",),
}


def custom_splits(table_folder: Path) -> dict[str, list[str]]:
    """Return the splits of `splits.json` beside the tables: split name -> scene names.

    Raises:
        UserError: the file is no object of lists of scene names.
    """
    path = table_folder / "splits.json"
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); write {{split: [scene, ...]}}") from error
    fits = isinstance(splits, dict) and all(
        isinstance(scenes, list) and all(isinstance(name, str) for name in scenes)
        for scenes in splits.values()
    )
    if not fits:
        raise UserError(f"{path} must map split names to lists of scene names")
    return {str(name): list(scenes) for name, scenes in splits.items()}


def split_scenes(table_folder: Path, splits: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return the scene names of each split.

    Args:
        table_folder: folder of the tables; its name is the version, e.g. ".../v1.0-mini".
        splits: names from the devkit or from `splits.json`; empty: the usual ones of the version,
            and all of `splits.json`.

    Raises:
        UserError: an unknown split, or one that does not go with the version.
    """
    version = table_folder.name
    custom = custom_splits(table_folder)
    if not splits:
        kind = next((kind for kind in DEFAULT_SPLITS if version.endswith(kind)), "")
        splits = (*DEFAULT_SPLITS.get(kind, ()), *custom)
    if not splits:
        raise UserError(
            f"version {version} has no predefined splits; write {table_folder / 'splits.json'} "
            f'as {{"train": ["scene-0001", ...]}}'
        )
    return {split: _scenes(table_folder, split, custom) for split in splits}


def _scenes(table_folder: Path, split: str, custom: dict[str, list[str]]) -> list[str]:
    if split in VERSION_OF_SPLIT:
        kind = VERSION_OF_SPLIT[split]
        if not table_folder.name.endswith(kind):
            raise UserError(
                f"split {split} belongs to a version that ends in {kind}, "
                f"got version {table_folder.name}; name another --split or --version"
            )
        from nuscenes.utils.splits import create_splits_scenes  # imports for seconds

        return list(create_splits_scenes()[split])
    if split in custom:
        return custom[split]
    known = sorted({*VERSION_OF_SPLIT, *custom})
    close = difflib.get_close_matches(split, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise UserError(f"unknown split {split} of {table_folder}; {hint}")
