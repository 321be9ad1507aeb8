"""perception3d: sparse 3D point-cloud perception."""

__version__ = "0.1.0"
