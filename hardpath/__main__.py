"""`python -m hardpath`, the same as `hardpath`."""

from hardpath.command import main

main()
