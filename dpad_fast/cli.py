"""The command line: `dpad-fast demo | train | score | evaluate | infer | report | audit | serve | bench | data | info`.

Each command is a module of `dpad_fast.commands` with `add_arguments(parser)` and `run(args) -> int`. Only the module of
the command that was typed is imported, so that `dpad-fast --help` and a typing error answer at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from dpad_fast._version import __version__
from dpad_fast.terminal import drop_stdout, printable, use_utf8


class Command(NamedTuple):
    """What the top-level help and the example at the end of a command's own help say."""

    summary: str
    example: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "train two small policies side by side, with and without R_dpad, and compare them",
        "dpad-fast demo --setting E --out demo-out",
    ),
    "train": Command(
        "train a policy from a YAML configuration; run the same command again to resume",
        "dpad-fast train configs/shapes-e.yaml --set steps=20 --out runs/shapes-e",
    ),
    "score": Command(
        "score a JSONL of completions against a data folder, term by term",
        "dpad-fast score completions.jsonl --data path/to/reasonseg",
    ),
    "evaluate": Command(
        "gIoU, cIoU, chain length, S1 against S2 and format rate of predictions or of a checkpoint",
        "dpad-fast evaluate predictions.jsonl --data path/to/reasonseg",
    ),
    "infer": Command(
        "ask a policy about pictures: chain, location, description, mask, and a picture of each answer",
        'dpad-fast infer photo.jpg "the cup nearest to the edge" --policy path/to/policy --segmenter sam2',
    ),
    "report": Command(
        "turn results of train, demo and evaluate into one self-contained HTML page, side by side",
        "dpad-fast report runs/a runs/b --out page.html",
    ),
    "audit": Command(
        "look for signs of reward hacking in results of train, demo and evaluate",
        "dpad-fast audit runs/shapes-e",
    ),
    "serve": Command(
        "one scorer for many processes: an HTTP server on one device, for RemoteScorer, OpenRLHF and slime",
        "dpad-fast serve --encoder openai/clip-vit-base-patch32 --device cuda:0",
    ),
    "bench": Command(
        "time the ops against their peers (from a clone of the repository)",
        "dpad-fast bench --help",
    ),
    "data": Command(
        "prepare a training set, check or show a data set; embed one ahead; the shapes world and its checkpoints",
        "dpad-fast data prepare path/to/data --out train-840 --size 840x840",
    ),
    "info": Command(
        "versions, what was built, and what this machine's CPU and GPU offer",
        "dpad-fast info",
    ),
}

_RAW = argparse.RawDescriptionHelpFormatter


class _Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, like everything else here, and a full disk under its help too."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            print(message, end="", file=file or sys.stderr, flush=True)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)}; try {self.prog} --help\n")


def _top_parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<10}{command.summary}" for name, command in COMMANDS.items())
    parser = _Parser(
        prog="dpad-fast",
        formatter_class=_RAW,
        usage="dpad-fast COMMAND [options]",
        description="Rewards, training and evaluation for models that find things in images (DPAD).",
        epilog=f"commands:\n{rows}\n\n`dpad-fast COMMAND --help` explains one command.\n\n"
        f"example:\n  {COMMANDS['demo'].example}",
    )
    parser.add_argument("--version", action="version", version=f"dpad-fast {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    return parser


def _command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command, with its module's `run` as the default of `run`."""
    module = importlib.import_module(f"dpad_fast.commands.{name}")
    parser = _Parser(
        prog=f"dpad-fast {name}",
        formatter_class=_RAW,
        description=(module.__doc__ or COMMANDS[name].summary).strip(),
        epilog=f"example:\n  {COMMANDS[name].example}",
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser


def _complain(name: str, message: str) -> int:
    print(printable(f"{f'dpad-fast {name}'.strip()}: error: {' '.join(message.split())}"), file=sys.stderr)
    return 2


def _tell_warning(name: str) -> Callable[..., None]:
    """What shows a warning: a line of ours, without the path and source line that Python adds."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(printable(f"dpad-fast {name}: warning: {' '.join(str(message).split())}"), file=sys.stderr)

    return show


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse "": an unset variable of a shell would be the current folder, or no option at all."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if argument == "":
            raise ValueError(f"{before} is empty" if before.startswith("--") else "an argument is empty")
        if option.startswith("--") and equals and value == "":
            raise ValueError(f"{option} is empty")


def _run(name: str, arguments: Sequence[str]) -> int:
    """Run one command."""
    _refuse_empty(arguments)
    args = _command_parser(name).parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _tell_warning(name)
        status = int(args.run(args) or 0)
    sys.stdout.flush()  # here, where a full disk is still one line
    return status


def _in_one_line(name: str, call: Callable[[], int]) -> int:
    """What `call` returns; a user's mistake becomes one line and exit status 2."""
    try:
        return call()
    except KeyboardInterrupt:
        print(f"\n{f'dpad-fast {name}'.strip()}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        drop_stdout()  # the reader (`| head`) left
        return 0
    except OSError as error:
        drop_stdout()
        if os.environ.get("DPAD_FAST_TRACEBACK"):
            raise
        # Files are named by whoever writes them (`dpad_fast.files`); what is full without a name is standard output.
        place = error.filename or ("standard output" if error.errno in (errno.ENOSPC, errno.EFBIG) else None)
        where = "" if place is None else f": {place}"
        return _complain(name, f"{error.strerror or error}{where}")
    except ValueError as error:
        if os.environ.get("DPAD_FAST_TRACEBACK"):
            raise
        return _complain(name, str(error))
    except ModuleNotFoundError as error:
        if os.environ.get("DPAD_FAST_TRACEBACK") or (error.name or "").split(".")[0] == "dpad_fast":
            raise
        hint = 'pip install "dpad-fast[train]"'
        return _complain(name, f"{error.name} is not installed; the training extras bring it: {hint}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `dpad-fast` script.

    Args:
        argv: the arguments after the program's name; `sys.argv[1:]` when None.

    Returns:
        The exit status: 0 when all is well, 2 for a user's mistake, which is told in one line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    use_utf8()
    if sys.stdout is None:
        return _complain("", "standard output is closed; /dev/null takes what nobody wants")
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        return _in_one_line("", lambda: _help(arguments[:1]))
    if arguments[0].startswith("-"):
        return _complain("", f"unknown option {arguments[0]}; try dpad-fast --help")
    name = arguments[0]
    if name not in COMMANDS:
        return _complain(name, f"no such command; the commands are {', '.join(COMMANDS)}")
    return _in_one_line(name, lambda: _run(name, arguments[1:]))


def _help(arguments: Sequence[str]) -> int:
    """The top-level help or version, which leave; help alone where nothing was typed."""
    top = _top_parser()
    if arguments:
        top.parse_args(arguments)
    top.print_help()
    return 2


if __name__ == "__main__":
    sys.exit(main())
