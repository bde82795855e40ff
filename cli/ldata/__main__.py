"""``python -m cli.ldata``, where the folder of installed programs is not in the path."""

from cli.ldata import main

main(prog_name="ldata")
