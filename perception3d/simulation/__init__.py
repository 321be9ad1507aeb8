"""A driving-scene simulator that writes a nuScenes-schema data set."""
