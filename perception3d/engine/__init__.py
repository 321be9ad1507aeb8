"""mmengine glue.  Import the submodules: this front stays empty so that `--help` is quick."""
