"""Measures operators against their peers: same process, same inputs, alternating."""
