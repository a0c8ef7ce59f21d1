"""The command `maxtron`: `maxtron evaluate --recipe demo` is `python -m jobs.evaluate --recipe demo`, from any folder.

    maxtron                         lists the verbs
    maxtron --completion            prints what bash needs to complete verbs, recipes and flags:
                                    eval "$(maxtron --completion)"
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from pathlib import Path

FLAGS = ("--recipe", "--set", "--strict", "--dry-run", "--help")

COMPLETION = """_maxtron() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" = 1 ]; then COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
  elif [ "${{COMP_WORDS[COMP_CWORD-1]}}" = --recipe ]; then COMPREPLY=($(compgen -f -W "{recipes}" -- "$word"))
  else COMPREPLY=($(compgen -W "{flags}" -- "$word")); fi
}}
complete -o default -F _maxtron maxtron"""


def main() -> None:
    """Run a verb in place of this process, so that signals and exit codes are those of the verb."""
    arguments = sys.argv[1:]
    known = verbs()
    if arguments[:1] == ["--completion"]:
        print(completion(known))
    elif not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("maxtron VERB --recipe NAME [--set path.to.field=value ...]\n")
        print("\n".join(f"  {verb:{width}}  {about}" for verb, about in known.items()))
    elif arguments[0] not in known:
        near = difflib.get_close_matches(arguments[0], known, n=3) or list(known)
        print(f"error: there is no verb {arguments[0]!r}; did you mean {', '.join(near)}?", file=sys.stderr)
        raise SystemExit(2)
    else:
        # -P: a folder `jobs` or `model` where the command is started is not ours
        os.execv(sys.executable, [sys.executable, "-P", "-m", f"jobs.{arguments[0]}", *arguments[1:]])


def verbs() -> dict[str, str]:
    """Verb -> the first line of its manual."""
    folder = Path(__file__).resolve().parents[1] / "jobs"
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    return {name: ast.get_docstring(ast.parse(source)).splitlines()[0] for name, source in sources.items()
            if '\nif __name__ == "__main__"' in source}


def completion(known: dict[str, str]) -> str:
    """A script for bash."""
    from jobs.recipes import RECIPES

    return COMPLETION.format(verbs=" ".join(known), recipes=" ".join(sorted(RECIPES)), flags=" ".join(FLAGS))


if __name__ == "__main__":
    main()
