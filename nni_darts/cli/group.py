"""The group of all commands, which handles a user's mistakes, a full disk and Ctrl-C for every command."""

from __future__ import annotations

from typing import Any

import click

from nni_darts import __version__
from nni_darts.errors import InputError, RankLost, sentence
from nni_darts.files import no_room

__all__ = ['main']

_ORDER = (
    *('fit', 'predict', 'evaluate', 'export', 'demo', 'new', 'doctor'),
    *('check', 'launch', 'list', 'status', 'wait', 'open', 'table', 'stop', 'resume'),
    *('search', 'derive', 'retrain', 'draw', 'cost', 'latency', 'query'),
    *('strategies', 'recipes'),
)
"""Order of the commands in the help; unlisted commands follow."""


class _Command(click.Command):
    """A command that refuses an option given twice if only one value counts, and an empty path, which would mean the current folder."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        values, _, given = self.make_parser(context).parse_args(args=list(args))
        for option in given:
            value = values.get(option.name or '')
            if isinstance(option.type, click.Path) and '' in (value if isinstance(value, (list, tuple)) else [value]):
                name = option.opts[0] if isinstance(option, click.Option) else option.human_readable_name
                raise InputError(f'{name} is empty; give a path.')
            if isinstance(option, click.Option) and not option.multiple and given.count(option) > 1:
                raise InputError(f'{option.opts[0]} is given {given.count(option)} times; give it once.')
        return super().parse_args(context, args)


class _Commands(click.Group):
    """A group that prints an InputError as one sentence with exit code 2, and Ctrl-C with 130, and lists commands in order of use."""

    command_class = _Command

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: (_ORDER + (name,)).index(name))

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            problem = click.ClickException(sentence(str(error)))
            problem.exit_code = 2  # type: ignore[misc]
            raise problem from None
        except (ArithmeticError, RankLost) as error:
            if isinstance(error, ZeroDivisionError):
                raise  # a fault in some code, which its traceback shows, and not a training that diverged
            raise click.ClickException(sentence(str(error))) from None
        except OSError as error:
            if no_room(error):
                file = f'{error.filename} cannot be written' if error.filename else 'a file cannot be written'
                raise click.ClickException(f'{file}: {no_room(error)}. {self._advice(context)}') from None
            if error.filename is None or error.strerror is None:
                raise  # not about a file, so not a mistake of the user
            raise click.ClickException(f'{error.filename}: {error.strerror}.') from None

    def _advice(self, context: click.Context) -> str:
        """Returns the sentence that says how to continue once the disk has room again."""
        command = self.commands.get(context.invoked_subcommand or '')
        if command is not None and any(parameter.name == 'resume' for parameter in command.params):
            return 'Make room, then run the same command with --resume to continue.'
        if command is not None and command.name == 'trial':
            return 'Make room; when it is restarted, the trial continues from its last checkpoint.'
        return 'Make room, then run the same command again.'


@click.group(cls=_Commands, context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 110})
@click.version_option(__version__, prog_name='nni-darts')
def main() -> None:
    """Differentiable architecture search: find a cell, train its network, and inspect both.

    \b
    First steps, which take minutes on two cores and download nothing:
      nni-darts demo                                      two strategies as an NNI experiment, with pages to look at
      nni-darts new quickstart DIR                        the same as files to edit; launch starts them
      nni-darts search --output out/search                one search by itself
      nni-darts draw out/search --output cell.svg         a drawing of the cell that it found
      nni-darts retrain --genotype out/search --output out/retrain
    """
