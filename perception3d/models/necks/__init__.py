"""From sparse voxels to the map that a head reads."""
