"""``python -m diffgrm`` is the command ``diffgrm``."""

from diffgrm.cli import main

main()
