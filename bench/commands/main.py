"""The `bench` command: which commands there are, and how they end.

A command is imported when it is called, or when the help names it; what is heavy (torch, pandas) is imported by those commands
that need it, while they run. So `bench --version`, `bench --help` and `bench list` answer at once.
"""

import errno
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from bench.commands import waiting
from bench.errors import BenchError, one_line, printable
from bench.system import library_warnings
from bench.system.version import VERSION

# name of a command -> module:object
COMMANDS = {
    "check": "bench.commands.check:check_command",
    "compare": "bench.commands.results:compare",
    "data": "bench.commands.data:data_command",
    "doctor": "bench.commands.check:doctor",
    "export": "bench.commands.export:export_command",
    "gate": "bench.commands.results:gate",
    "learn": "bench.commands.learn:learn_command",
    "list": "bench.commands.list:list_command",
    "metrics": "bench.commands.results:metrics",
    "new": "bench.commands.new:new_command",
    "plot": "bench.commands.results:plot",
    "predict": "bench.commands.predict:predict_command",
    "profile": "bench.commands.profile:profile_command",
    "publish": "bench.commands.publish:publish_command",
    "report": "bench.commands.results:report",
    "reproduce": "bench.commands.reproduce:reproduce_command",
    "run": "bench.commands.run:run_command",
    "show": "bench.commands.show:show_command",
    "table": "bench.commands.results:table",
    "tune": "bench.commands.tune:tune_command",
}


class _ImportedWhenAskedFor(MutableMapping[str, click.Command]):
    """Name -> command. Names are known at once, for suggestions too; a command's module is imported when it is looked up."""

    def __init__(self, places: dict[str, str]):
        self._commands: dict[str, str | click.Command] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if isinstance(command, str):
            module, _, attribute = command.partition(":")
            command = self._commands[name] = waiting.with_quiet(getattr(import_module(module), attribute))
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


class _Bench(click.Group):
    """Turns what the user can mend into one line on stderr and exit code 2."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _complain(error.format_message())

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(context, args)
        waiting.names(f"bench {found[0]}")
        return found

    def invoke(self, context: click.Context) -> Any:
        try:
            with waiting.shown("bench"), library_warnings.left_to_their_authors():
                return super().invoke(context)
        except NoArgsIsHelpError:
            raise
        except click.ClickException as error:
            command = getattr(error, "ctx", None)
            _complain(error.format_message() + (f" ({command.command_path} --help says more)" if command else ""))
        except KeyboardInterrupt:
            click.echo("bench: interrupted", err=True)
            raise SystemExit(130) from None
        except BenchError as error:
            _complain(str(error))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                _complain(
                    f"no space left on the disk ({error.filename or 'results or cache folder'}); free some and repeat the command"
                )
            _complain(f"{error.filename or 'file'}: {one_line(error)}")


def _complain(message: str) -> NoReturn:
    click.echo(f"bench: {printable(message)}", err=True)
    raise SystemExit(2)


@click.group(
    cls=_Bench,
    commands=_ImportedWhenAskedFor(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(VERSION, prog_name="bench")
def main() -> None:
    """Benchmark continual learning of CLIP: run methods on a stream, compare them in a table."""
