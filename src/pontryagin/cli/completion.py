"""`pontryagin completion`: what a shell needs to complete commands and options."""

from dataclasses import dataclass
from typing import Literal

from pontryagin.cli.arguments import flag
from pontryagin.cli.options import Call, Command
from pontryagin.run.option import option

_SCRIPT = """\
_pontryagin() {{
    local line="${{COMP_WORDS[*]:1:COMP_CWORD-1}} " words
    case "$line" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _pontryagin pontryagin
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@dataclass(frozen=True)
class Shell:
    """Print a script with which a shell completes commands and options by the Tab key. Write it into a file
    once, and source that file where the shell begins, in ~/.bashrc or ~/.zshrc.
    """

    shell: Literal["bash", "zsh"] = option("bash or zsh")


def script(shell: str) -> str:
    """For this shell: after a group its commands, after a command its options; file names where none fits."""
    from pontryagin.cli.commands import COMMANDS, command

    cases = []
    for path in sorted(["", *COMMANDS], key=len, reverse=True):  # the longer name before its beginning
        inner = [one.removeprefix(path).strip() for one in COMMANDS if one.rpartition(" ")[0] == path]
        options = [flag(name) for name in command(path).options] if COMMANDS.get(path, ("",))[0] else []
        pattern = f'"{path} "*' if path else "*"
        cases.append(f'        {pattern}) words="{" ".join([*inner, *options, "--help"])}" ;;')
    return (_ZSH if shell == "zsh" else "") + _SCRIPT.format(cases="\n".join(cases))


def _completion(call: Call) -> bool:
    print(script(call.make(Shell).shell), end="")
    return False


COMMANDS = {"completion": Command(_completion, (Shell,))}
