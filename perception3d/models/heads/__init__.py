"""From a BEV map to boxes."""
