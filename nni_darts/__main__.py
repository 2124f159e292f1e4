"""``python -m`` of this package is the command ``nni-darts``."""

from nni_darts.cli import main

if __name__ == '__main__':
    main(prog_name='nni-darts')
