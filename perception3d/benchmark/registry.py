"""All rows of the operator benchmark.  A new operator adds a file of rows and a line here."""

from perception3d.benchmark import (
    rows_attention,
    rows_boxes,
    rows_depthwise_conv,
    rows_detector,
    rows_dsvt,
    rows_linear,
    rows_linear_attention,
    rows_mamba_mixer,
    rows_partition,
    rows_scan,
    rows_scatterformer,
    rows_set_transformer,
    rows_sparse_conv,
    rows_voxel_mamba,
    rows_voxels,
)
from perception3d.benchmark.row import Row

ROWS: tuple[Row, ...] = (
    *rows_voxels.ROWS,
    *rows_partition.ROWS,
    *rows_attention.ROWS,
    *rows_set_transformer.ROWS,
    *rows_sparse_conv.ROWS,
    *rows_depthwise_conv.ROWS,
    *rows_linear.ROWS,
    *rows_linear_attention.ROWS,
    *rows_scan.ROWS,
    *rows_mamba_mixer.ROWS,
    *rows_boxes.ROWS,
    *rows_dsvt.ROWS,
    *rows_scatterformer.ROWS,
    *rows_voxel_mamba.ROWS,
    *rows_detector.ROWS,
)
