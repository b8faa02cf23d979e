"""The command line, one command a file; `python -m hi3d_core` lists them."""
