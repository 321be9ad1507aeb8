"""Pictures from values: they show what they are given and decide nothing.

Import the submodules: this front stays empty so that nothing heavy is loaded without need.
"""
