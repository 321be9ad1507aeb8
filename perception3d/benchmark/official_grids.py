"""Grids and stages of the published networks, for `measure_shapes`.

Sources: Haiyang-W/DSVT: tools/cfgs/dsvt_models, skyhehe123/ScatterFormer: scatterformer.yaml,
gwenzhang/Voxel-Mamba: voxel_mamba_waymo.yaml.
"""

from perception3d.benchmark.shapes import Downsample, GridSettings, Partition, Stage

WAYMO = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
WAYMO_WIDE = (-76.8, -76.8, -2.0, 76.8, 76.8, 4.0)
NUSCENES = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
SENSOR_HEIGHT = 1.84  # m
HALVE_Z = Downsample((1, 1, 2), kernel=(1, 1, 3))
HALVE = Downsample((2, 2, 2), kernel=(3, 3, 3), padding=(1, 1, 1))
QUARTER = Downsample((4, 4, 4), kernel=(5, 5, 5), padding=(2, 2, 2))


def _dsvt_voxel_stages() -> tuple[Stage, ...]:
    stages = []
    for number, (depth, pool) in enumerate([(32, None), (8, 4), (2, 4), (1, 2)]):
        before = () if pool is None else (Downsample((1, 1, pool)),)
        cuts = (
            Partition((12, 12, depth), (0, 0, 0), 48),
            Partition((24, 24, depth), (6, 6, 0), 48),
        )
        stages.append(Stage(f"stage {number}", before, cuts))
    return tuple(stages)


def _scatterformer_stages(window: int, depth: int) -> tuple[Stage, ...]:
    def cut(size: int, layers: int) -> tuple[Partition, ...]:
        return (Partition((size, size, layers)),)

    return (
        Stage("voxels"),
        Stage("stage 1", (HALVE_Z,), cut(window, depth)),
        Stage("stage 2", (HALVE,), cut(window, depth)),
    )


def _voxel_mamba_stages() -> tuple[Stage, ...]:
    return (
        Stage("stage 0"),
        Stage("stage 1", (HALVE_Z,)),
        Stage("stage 1 low", (HALVE,), aside=True),
        Stage("stage 2", (HALVE_Z,)),
        Stage("stage 2 low", (QUARTER,), aside=True),
        Stage("BEV cells", (HALVE_Z, HALVE_Z)),
    )


OFFICIAL_GRIDS = {
    grid.name: grid
    for grid in (
        GridSettings(
            "dsvt_waymo_pillar",
            (0.32, 0.32, 6.0),
            WAYMO,
            (
                Stage(
                    "pillars",
                    partitions=(
                        Partition((12, 12, 1), (0, 0, 0), 36),
                        Partition((24, 24, 1), (6, 6, 0), 36),
                    ),
                ),
            ),
            raised=SENSOR_HEIGHT,
        ),
        GridSettings(
            "dsvt_nuscenes_pillar",
            (0.3, 0.3, 8.0),
            NUSCENES,
            (
                Stage(
                    "pillars",
                    partitions=(
                        Partition((30, 30, 1), (0, 0, 0), 90),
                        Partition((30, 30, 1), (15, 15, 0), 90),
                    ),
                ),
            ),
        ),
        GridSettings(
            "dsvt_waymo_voxel",
            (0.32, 0.32, 0.1875),
            WAYMO,
            _dsvt_voxel_stages(),
            raised=SENSOR_HEIGHT,
        ),
        GridSettings(
            "scatterformer_waymo",
            (0.32, 0.32, 0.1875),
            WAYMO_WIDE,
            _scatterformer_stages(12, 33),
            extra_z=1,
            raised=SENSOR_HEIGHT,
        ),
        GridSettings(
            "scatterformer_nuscenes",
            (0.3, 0.3, 0.2),
            NUSCENES,
            _scatterformer_stages(20, 41),
            extra_z=1,
        ),
        GridSettings(
            "voxel_mamba_waymo",
            (0.32, 0.32, 0.1875),
            WAYMO,
            _voxel_mamba_stages(),
            extra_z=1,
            raised=SENSOR_HEIGHT,
        ),
    )
}
