"""How others do the same work, written from descriptions, as opponents of the benchmark."""
