"""Runs the command ``nni-darts`` as ``python -m`` of this package."""

from nni_darts.cli import main

if __name__ == '__main__':
    main(prog_name='nni-darts')
