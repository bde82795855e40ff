"""``python -m cli.ltrain``, for launchers that start modules, such as torchrun."""

from cli.ltrain import main

main(prog_name="ltrain")
