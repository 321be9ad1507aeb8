"""The values that flow through the stack: frozen, typed, checked at the border."""

from perception3d.structures.batch import Batch, Cameras, Sample, Targets
from perception3d.structures.boxes import BOX_COLUMNS, Boxes3D
from perception3d.structures.curves import CurveOrder, CurveSpec
from perception3d.structures.predictions import Detections
from perception3d.structures.sparse_voxels import IndexCache, PointVoxels, SparseVoxels
from perception3d.structures.table_rows import TableRows
from perception3d.structures.windows import SetPartition, Windows, WindowSpec

__all__ = [
    "BOX_COLUMNS",
    "Batch",
    "Boxes3D",
    "Cameras",
    "CurveOrder",
    "CurveSpec",
    "Detections",
    "IndexCache",
    "PointVoxels",
    "Sample",
    "SetPartition",
    "SparseVoxels",
    "TableRows",
    "Targets",
    "WindowSpec",
    "Windows",
]
