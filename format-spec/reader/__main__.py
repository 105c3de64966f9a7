"""`python3 format-spec/reader COMMAND …`, described in README.md."""

import sys

import cli

sys.exit(cli.run(sys.argv[1:]))
