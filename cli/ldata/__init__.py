"""The command ``ldata``: build, inspect and check caches."""

from __future__ import annotations

import click

from cli.main_group import MainGroup
from leukemia_data import __version__

_COMMANDS = {
    "sample": ("cli.ldata.source:sample", "Write generated cells in the C-NMC folder tree."),
    "scan": ("cli.ldata.source:scan", "Say how a source is understood, before anything is built."),
    "build": ("cli.ldata.build:build", "Preprocess images into caches, only what is new or changed."),
    "plan": ("cli.ldata.build:plan", "Plan a build for many jobs: write what each has to do."),
    "commit": ("cli.ldata.build:commit", "Make caches of what the jobs of a plan have made."),
    "stats": ("cli.ldata.look:stats", "Print exact mean and std for normalisation, and counts."),
    "info": ("cli.ldata.look:info", "Show what a cache holds and how it was made."),
    "list": ("cli.ldata.look:list_", "List the caches in a folder."),
    "recipes": ("cli.ldata.look:recipes", "List the preprocessing recipes, or show one."),
    "preview": ("cli.ldata.source:preview", "Draw images step by step through a recipe."),
    "audit": ("cli.ldata.audit:audit", "Look for leaks, near duplicates, wrong labels and odd frames."),
    "recover-subjects": ("cli.ldata.audit:recover_subjects", "Find whose cells renumbered files show."),
    "bench": ("cli.ldata.look:bench", "Measure how fast this machine feeds a network."),
    "push": ("cli.ldata.keep:push", "Copy a cache into an object store."),
    "pull": ("cli.ldata.keep:pull", "Copy a cache out of an object store."),
    "verify": ("cli.ldata.keep:verify", "Check every byte of a cache and name what is damaged."),
    "convert": ("cli.ldata.keep:convert", "Store a cache's images compressed without loss, or raw again."),
    "gc": ("cli.ldata.keep:gc", "Remove files that no cache needs any more."),
    "completion": ("cli.options:completion", "Print the script that completes commands and names in a shell."),
}


@click.group("ldata", cls=MainGroup, lazy_commands=_COMMANDS)
@click.version_option(__version__, prog_name="ldata")
def main() -> None:
    """Preprocess leukaemia cell images once, into caches that training streams from.

    \b
    Examples:
      ldata sample demo-images            # generated cells to try everything with
      ldata scan demo-images              # how the folders and names are understood
      ldata build demo-images --size 128 --size 224
      ldata stats --size 224              # values to paste into Normalize
      ldata preview demo-images           # what each preprocessing step does
    """
