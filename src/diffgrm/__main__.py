"""``python -m diffgrm`` is the command ``diffgrm``."""

from diffgrm.apps.cli.main import main

main()
