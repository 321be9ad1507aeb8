"""nuScenes info files as an mmengine data set of Samples."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray

from perception3d.data.epoch import EpochClock
from perception3d.data.frame import Frame, frame_from_record
from perception3d.data.info_file import InfoFile
from perception3d.errors import UserError
from perception3d.structures import Sample
from perception3d.transforms.pipeline import Loader, Pipeline, Transform


class NuScenesDataset(BaseDataset):  # type: ignore[misc]  # mmengine ships no types
    """Frames of an info file.

    The info file stays on disk: a frame is parsed when it is asked for, so memory does not grow
    with the data set and loader processes share nothing but the file.

    Args:
        data_root: folder that the paths in the info file are relative to.
        ann_file: info file; a relative path is relative to `data_root`.
        pipeline: loaders and transforms, objects or dict(type=Class, ...).
        classes: classes to use, their order defines the labels; None: those of the info file.
        filter_empty: leave out frames without an annotated box (with a LiDAR or radar point) of
            these classes; None: do so unless test_mode.
        test_mode: frames are for evaluation: all are needed.
        indices: use only the first n frames (int) or these frames.
        seed: seed of the random transforms; see `set_seed`.

    Raises:
        UserError: no such folder or file, another schema version, an unknown class.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        pipeline: Sequence[Loader | Transform | Mapping[str, Any]] = (),
        *,
        classes: Sequence[str] | None = None,
        filter_empty: bool | None = None,
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        if not Path(data_root).is_dir():
            raise UserError(
                f"data_root {data_root} is no folder; set data_root in the config, or on "
                "the command line with --cfg-options data_root=DIR"
            )
        self.clock = EpochClock(seed)
        self.info = InfoFile(Path(data_root) / ann_file)
        self.classes = self._check_classes(classes)
        self.filter_empty = not test_mode if filter_empty is None else filter_empty
        super().__init__(
            ann_file=str(ann_file),
            data_root=str(data_root),
            data_prefix={},
            indices=indices,
            serialize_data=False,  # a line number a frame: nothing to save
            test_mode=test_mode,
        )
        self._metainfo.update(  # not through the constructor: it opens strings that name files
            classes=self.classes,
            data_root=str(data_root),
            ann_file=str(self.info.path),
            version=self.info.header["version"],
            split=self.info.header["split"],
        )
        self.pipeline = Pipeline(pipeline)
        if not len(self):
            raise UserError(
                f"{self.info.path}: no frame is left of {len(self.info)}; check classes "
                f"({', '.join(self.classes)}), filter_empty and indices"
            )

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch (0-based), before its first frame is loaded; reaches all workers."""
        self.clock.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        """Tell the seed of the random transforms; reaches all workers."""
        self.clock.set_seed(seed)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the line number of each frame that takes part."""
        lines: Iterable[int] = range(len(self.info))
        if self.filter_empty:
            lines = np.nonzero(self._shown.any(axis=1))[0].tolist()
        return [{"line": line} for line in lines]

    def frame(self, index: int) -> Frame:
        """Return what the info file says about a frame."""
        record = self.info.record(self.get_data_info(index)["line"])
        try:
            return frame_from_record(record, Path(self.data_root), self.classes)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"info file {self.info.path} is damaged at frame {index} ({error!r}); make it anew"
            ) from error

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Load and transform a frame with the given random stream."""
        return self.pipeline(self.frame(index), rng)

    def prepare_data(self, index: int) -> Sample:
        """Load and transform a frame; its random stream depends on seed, epoch and index alone."""
        return self.sample(index, self.clock.generator(index))

    def class_names(self, index: int) -> set[str]:
        """Return the classes with an annotated box that holds a point, in one frame."""
        return {self.classes[label] for label in self.get_cat_ids(index)}

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of one frame, for mmengine's wrappers."""
        shown = self._shown[self.get_data_info(idx)["line"]]
        return [int(label) for label in np.nonzero(shown)[0]]

    @cached_property
    def _shown(self) -> NDArray[np.bool_]:
        """Say per line and class whether a box with a point is there; reads the whole file."""
        label_of_name = {name: label for label, name in enumerate(self.classes)}
        shown = np.zeros((len(self.info), len(self.classes)), dtype=bool)
        for line in range(len(self.info)):
            columns = self.info.record(line)["annotations"]
            if columns is None:
                continue
            for name, lidar, radar in zip(
                columns["names"], columns["num_lidar_pts"], columns["num_radar_pts"], strict=True
            ):
                if name in label_of_name and lidar + radar:
                    shown[line, label_of_name[name]] = True
        return shown

    def _check_classes(self, classes: Sequence[str] | None) -> tuple[str, ...]:
        known = self.info.classes
        for name in classes or ():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise UserError(f"classes: {name!r} is not a class of {self.info.path}; {hint}")
        chosen = tuple(known if classes is None else classes)
        if not chosen or len(set(chosen)) < len(chosen):
            raise UserError(f"classes must be different names, at least one, got {list(chosen)}")
        return chosen
