"""The parts that all verbs share: command line, exit codes, summary line, next command and recorded run.

    python -m jobs.<verb> --recipe NAME [--set path.to.field=value ...]
    python -m jobs.<verb> --recipe my_data.toml      (jobs/recipe_file.py)

Exit codes: 0 done, 2 usage or configuration, 3 data, 4 parts that do not belong together, 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP, 1 anything else.
The last line printed is the summary as JSON; a submitted job that fails prints its exit code and the reason last.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from pathlib import Path
from typing import Annotated, Any

import tyro

from jobs import stopping
from jobs.cluster import explained_loss, inside_a_job, joins_cluster, leave_own_cluster, submitting
from jobs.code_version import code_version
from jobs.config import assignments, config_digest, override, to_json
from jobs.console import accept_all_characters, log_to_terminal, say
from jobs.counted_classes import with_counted_classes
from jobs.ending import answered, end_process
from jobs.made_before import changed_since
from jobs.recipe_file import is_recipe_file, read_recipe_file, with_data_of_its_own
from jobs.recipes import RECIPES, find_recipe
from jobs.recipes.schema import Recipe
from jobs.silence import fall_silent
from jobs.surroundings import ended
from jobs.training.facts import NOTE, run_note, source_tags
from jobs.training.tracker import NoTracker, Recorded, Tracker, can_record, catch_up, unfinished
from jobs.training.tracking import chosen_uri
from pipeline import store
from pipeline.disk_space import cannot_write, explained
from pipeline.errors import BadInput, Mismatch
from pipeline.file_names import at_home
from pipeline.printable import without_secrets

# First match wins: a Mismatch and a BadInput are ValueErrors too.
EXIT_CODES = ((Mismatch, 4), (BadInput, 3), (ValueError, 2), (FileNotFoundError, 2), (ConnectionError, 2),
              (ArithmeticError, 2), (OSError, 1))

MEANINGS = {2: "configuration", 3: "data", 4: "parts that do not belong together"}

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")      # `pathlib` makes one slash of two

OUTPUTS = ("folder", "predict.output", "evaluation.output")      # settings that name folders to write into

COUNTED = (".num_classes", ".stuff_classes")            # settings that `count_classes` fills in

# Tag that holds the digest of what a verb reads -> what it is read for, and the property that gives the run it lies in.
DATA = {"shards": ("data", "shards_run"), "cache": ("training", "stage_one_run")}

_pages: list[str | None] = []       # of MLflow, where the verbs of this process are recorded

Verb = Callable[[Recipe], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """The flags of every verb. A verb with flags of its own adds them in a subclass."""

    recipe: str = ""                # name of a recipe, or a .toml file that changes one; an unknown name lists all
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()     # path.to.field=value, repeatable
    strict: bool = False            # stop at the first bad video instead of skipping and counting it
    dry_run: bool = False           # print the complete recipe and exit


def run(verb: Verb, *, default_recipe: str = "tiny", flags: type[CommandLine] = CommandLine,
        uses: Sequence[str] = ()) -> None:
    """Parse the command line, run the verb, print its summary and exit with its code.

    flags: a subclass for a verb with flags of its own, which is called with them as its second argument. uses: the
    processes that the verb needs on a cluster, names in `jobs.preflight.DEMANDS`.
    """
    accept_all_characters()
    log_to_terminal()
    given = answered(lambda: tyro.cli(flags, description=sys.modules[verb.__module__].__doc__,
                                      prog=f"python -m {_module(verb)}", default=flags(recipe=default_recipe)))
    changes = [*given.set, *(["strict=true"] if given.strict else [])]
    say(f"{_module(verb)}: recipe {given.recipe}", stream=sys.stderr)
    call = verb if flags is CommandLine else wraps(verb)(lambda recipe: verb(recipe, given))
    end_process(guarded(call, lambda: chosen_recipe(given.recipe, changes), dry_run=given.dry_run, uses=uses,
                        leave=leave_own_cluster))


def guarded(verb: Verb, build_recipe: Callable[[], Recipe], *, dry_run: bool = False, uses: Sequence[str] = (),
            leave: Callable[[], None] = lambda: None) -> int:
    """Run a verb and turn every error that a user can cause into one clear line and an exit code.

    uses: as `run` takes it; a cluster that the verb joins is checked for them first. leave: called before the summary.
    """
    folder = Path()
    store.forget()
    try:
        recipe = with_working_paths(build_recipe())
        folder = recipe.run_folder
        refuse_addresses(given_paths(recipe))
        refuse_broken_names(given_paths(recipe))
        refuse_files_as_folders(given_paths(recipe))
        if dry_run:
            say(json.dumps(to_json(recipe), indent=1))
            return 0
        refuse_relative_paths(given_paths(recipe))
        if uses:
            refuse_local_tracker(recipe)
        look_into_stores(given_paths(recipe))

        def going_on() -> str:
            return store.shown(f"what {_module(verb)} has finished is kept in {resolved(recipe).run_folder}; to go on: "
                               f"{shlex.join([*submitting(), 'python', *sys.orig_argv[1:]])}")

        stopping.begin(going_on())
        if uses and joins_cluster(recipe.cluster):
            from jobs.preflight import check_cluster  # here, since it imports Ray

            check_cluster(recipe.cluster, _module(verb), uses, given_paths(resolved(recipe)), outputs=OUTPUTS)
            stopping.begin(going_on())      # with the address that is known by now
        recipe = with_counted_classes(resolved(recipe))
        if notes := changed_since(recipe, _module(verb).removeprefix("jobs.")):
            say(*notes, stream=sys.stderr)
        summary = verb(recipe)
        leave()
        fall_silent()
        say(*(f"MLflow: {page}" for page in _pages[-1:] if page), json.dumps({"verb": _module(verb), **summary},
                                                                             default=str))
        return 0
    except Exception as raised:
        fall_silent()
        error = raised if isinstance(raised, ValueError) else explained(explained_loss(raised), folder.absolute())
        code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)
        if code is None and not inside_a_job():
            raise
        if cannot_write(error):
            error.add_note(f"To write elsewhere: {elsewhere(_module(verb), folder)}")
        if code is None:
            traceback.print_exc()
        else:
            say("\n  ".join([f"error: {error}", *getattr(error, "__notes__", [])]), stream=sys.stderr)
        if inside_a_job():
            say(last_line(code or 1, error), stream=sys.stderr)
        return code or 1
    finally:
        stopping.end_if_asked()


def elsewhere(module: str, run_folder: Path) -> str:
    """How the verb of a module writes elsewhere than into the folder of the run."""
    other = "/another/folder"
    match module.removeprefix("jobs."):
        case "predict":
            return f"--set predict.output={other}"
        case "evaluate":
            return f"--set evaluation.output={other}"
        case "reproduce":
            return f"--folder {other}"
        case "make_shards" | "check_dataset" | "train_stage_one":
            return f"--set folder={other}"
        case "train_stage_two" | "train_links" | "sweep":
            return shlex.join(["--set", f"folder={other}", "--set", f"stage_one_from={run_folder.absolute()}"])
    return f"copy the run to {other}, then --set folder={other}"


def last_line(code: int, error: BaseException) -> str:
    """The last line of a job that failed: its exit code and the reason."""
    return ended(code, MEANINGS.get(code) or type(error).__name__, next(iter(str(error).splitlines()), ""))


def chosen_recipe(recipe: str, changes: Iterable[str] = ()) -> Recipe:
    """The recipe of a name or of a file, with `path=value` changes. Relative paths in a file are relative to it.

    A recipe with a synthetic world loses it where data of one's own take its place.
    Raises FileNotFoundError without the file, ValueError for everything in it or in the changes that is no setting.
    """
    if not is_recipe_file(recipe):
        return override(find_recipe(recipe), with_data_of_its_own(changes))
    if inside_a_job() and not Path(recipe).is_absolute():
        raise ValueError(f"--recipe {recipe}: a submitted job runs in a copy of the code, so give the absolute path of "
                         f"a file that all machines can read, e.g. --recipe {Path('/data') / recipe}")
    file = read_recipe_file(recipe)
    try:
        base = override(file.base, with_data_of_its_own(file.settings))
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from None
    paths = given_paths(base)
    if streamed := _local(base.stage_one.input.stream_from):
        paths["stage_one.input.stream_from"] = (streamed,)
    here = [f"{name}={_absolute(given, folder=file.path.parent)}" for name, given in paths.items()
            if file.sets(name) and not any(map(ADDRESS.match, given))]
    return override(override(base, here), with_data_of_its_own(changes))


def refuse_relative_paths(paths: Mapping[str, Iterable[Path | str]]) -> None:
    """Raise ValueError for relative paths inside a submitted job, whose working folder is deleted with it.

    paths: by the setting of the recipe, or by the flag, such as "--output", that names them.
    """
    relative = {name: path for name, group in paths.items() for path in group if not at_home(path).is_absolute()}
    if inside_a_job() and relative:
        name, path = next(iter(relative.items()))
        example = f"{name} " if name.startswith("--") else f"--set {name}="
        raise ValueError(f"relative paths in {', '.join(relative)}: a submitted job runs in a copy of the code, so "
                         f"give absolute paths that all machines can read, e.g. {example}{Path('/data') / path}")


def with_working_paths(recipe: Recipe) -> Recipe:
    """The recipe with the paths that stand for addresses in stores in place of these (pipeline/store.py)."""
    changes = []
    for name, group in given_paths(recipe).items():
        if any(map(store.is_address, group)):
            paths = [str(store.working_path(path)) if store.is_address(path) else path for path in group]
            changes.append(f"{name}={paths[0] if len(paths) == 1 else json.dumps(paths)}")
    return override(recipe, changes) if changes else recipe


def look_into_stores(paths: Mapping[str, Iterable[Path | str]]) -> None:
    """Show here what the stores hold in the folders of a recipe, by setting. Raises ConnectionError for one that cannot
    be used."""
    for path in [Path(path) for group in paths.values() for path in group if store.in_store(path)]:
        while glob.has_magic(str(path)):
            path = path.parent
        store.look(path)


def refuse_addresses(paths: Mapping[str, Iterable[Path | str]]) -> None:
    """Raise ValueError for an address of another kind than s3:// and gs:// among paths by setting: it would become a
    local folder of that name."""
    for name, path in [(name, path) for name, group in paths.items() for path in group]:
        if ADDRESS.match(str(path)):
            raise ValueError(f"{name}={path} is an address that {name} cannot use; mount it and give the mounted path. "
                             "(The settings of a recipe take s3://BUCKET/FOLDER and gs://BUCKET/FOLDER.)")


def refuse_local_tracker(recipe: Recipe) -> None:
    """Raise ValueError for a run in a store that would be recorded in an SQLite file of one machine."""
    uri = chosen_uri(recipe.tracking)
    if store.in_store(recipe.run_folder) and (not uri or uri.startswith("sqlite:") or _local(uri)):
        raise ValueError(f"folder={store.shown(str(recipe.run_folder))} is in a store, and its runs would be recorded "
                         f"in {uri or 'an SQLite file'}, which only one machine has. Start a server that all machines "
                         "reach (mlflow server --host 0.0.0.0 --port 5000) and set MLFLOW_TRACKING_URI=http://HOST:5000"
                         ", or --set tracking.uri=http://HOST:5000")


def refuse_broken_names(paths: Mapping[str, Iterable[Path | str]]) -> None:
    """Raise ValueError for a path that is no text in the encoding of file names, since it cannot be recorded."""
    encoding = sys.getfilesystemencoding()
    further = "" if encoding == "utf-8" else ", or set PYTHONUTF8=1"
    for name, group in paths.items():
        for path in group:
            if any("\ud800" <= character <= "\udfff" for character in str(path)):
                raise ValueError(f"{name}={str(path)!a} has a name in another encoding than {encoding.upper()}; rename "
                                 f"it, or give a link to it that has a plain name{further}")


def refuse_files_as_folders(paths: Mapping[str, Iterable[Path | str]]) -> None:
    """Raise ValueError where results would go into a file, or through a link that leads nowhere."""
    for name in OUTPUTS:
        for path in map(at_home, paths.get(name, ())):
            there = next((part for part in (path, *path.parents) if os.path.lexists(part)), Path())
            if not there.is_dir():
                raise ValueError(f"{name}={path}: {there} is not a folder; remove it, or give another path")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, without `~`, since workers run in other folders."""
    return override(recipe, [f"{name}={_absolute(paths)}" for name, paths in given_paths(recipe).items()])


def _absolute(paths: tuple[str, ...], *, folder: Path = Path()) -> str:
    """The value of a setting that names these paths, relative ones below `folder`."""
    absolute = [str((folder / at_home(path)).absolute()) for path in paths]
    return absolute[0] if len(absolute) == 1 else json.dumps(absolute)


def given_paths(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Field -> paths for every file and folder that a recipe names. A synthetic world lies inside the run's folder."""
    paths = {"folder": recipe.folder or f"runs/{recipe.name}",
             "stage_one_from": recipe.stage_one_from,
             "shards_from": recipe.shards_from,
             "dataset.root": "" if recipe.world else recipe.dataset.root,
             "stage_one.stills.dataset.root": recipe.stage_one.stills.dataset.root if recipe.stage_one.stills else "",
             **recipe.starts,
             "evaluation.output": recipe.evaluation.output,
             "evaluation.predictions": recipe.evaluation.predictions,
             "evaluation.video_sets": recipe.evaluation.video_sets,
             "predict.input": recipe.predict.input, "predict.output": recipe.predict.output,
             "tracking.uri": _local(recipe.tracking.uri)}
    return {name: (path,) if isinstance(path, str) else path for name, path in paths.items() if path}


def _local(location: str) -> str:
    """A location that is a path, and not an address, a command or the name of a service."""
    return "" if ":" in location or location.startswith("databricks") else location


def next_command(recipe: Recipe, verb: str) -> str:
    """The line that says which command comes after a verb, with every setting of this one."""
    has_stage_two = recipe.stage_two is not None
    best = f"evaluation.mode={recipe.modes[-1]}"
    match verb:
        case "check_dataset":
            return command_line(recipe, "make_shards")
        case "make_shards":
            return command_line(recipe, "train_stage_one")
        case "train_stage_one" if has_stage_two:
            return command_line(recipe, "cache_queries")
        case "train_stage_one":
            return command_line(recipe, "evaluate", best)
        case "cache_queries":
            return command_line(recipe, "train_stage_two")
        case "train_stage_two":
            return command_line(recipe, "evaluate", best)
    raise ValueError(f"nothing comes after {verb!r}")


def command_line(recipe: Recipe, verb: str, *changes: str) -> str:
    """The line that runs a verb on this recipe, with everything in which it differs from the recipe of its name.

    Inside a submitted job it is the line that submits the next one.

    changes: further `path=value`, which come last and so win.
    """
    name = recipe.file or recipe.name
    given = assignments(to_json(resolved(chosen_recipe(name))), to_json(resolved(recipe)))
    known = set(map(_setting, changes))
    if recipe.count_classes:
        known |= {setting for setting in map(_setting, given) if setting.endswith(COUNTED)}
    kept = [assignment for assignment in given if _setting(assignment) not in known]
    settings = [word for change in (*kept, *changes) for word in ("--set", change)]
    words = [*submitting(), "python", "-m", f"jobs.{verb}", "--recipe", name, *settings]
    return store.shown("next: " + shlex.join(words))


def has_command(recipe: Recipe) -> bool:
    """Whether `--recipe` can name it: a table of jobs.reproduce is no recipe with a name or a file."""
    return bool(recipe.file) or recipe.name in RECIPES


def _setting(assignment: str) -> str:
    return assignment.partition("=")[0]


class recorded:
    """The MLflow run of a verb as a context, `with recorded(recipe, "evaluate") as tracker:`, closed on exit.

    What MLflow does not take is kept beside the run. After the block, `ids` of the tracker name the run of MLflow.
    """

    def __init__(self, recipe: Recipe, verb: str, **tags: Any) -> None:
        self.recipe = recipe
        self.verb = verb
        self.code = code_version()
        self.tags = {"recipe": recipe.name, "config_digest": config_digest(recipe), "code_commit": self.code["commit"],
                     "code_changed": self.code["changed"], **tags}
        self.record: Recorded | None = None

    def __enter__(self) -> Tracker:
        if not can_record(self.recipe.tracking, self.recipe.run_folder):
            say(f"{self.recipe.run_folder} is read-only, so this verb is not recorded in MLflow; set tracking.uri to "
                "record it elsewhere")
            return NoTracker()
        sources = source_tags(self.verb, self.code)
        tags = {name: str(value) for name, value in (self.tags | sources).items()}
        self.record = Recorded(self.recipe.tracking, folder=self.recipe.run_folder, run_name=self.recipe.name,
                               verb=self.verb, tags=tags, sync=partial(sync_command, self.recipe))
        tracker = self.record.__enter__()
        tracking = replace(self.recipe.tracking, uri=without_secrets(self.recipe.tracking.uri))     # others read it
        tracker.json("recipe.json", to_json(replace(self.recipe, tracking=tracking)))
        tracker.json("environment.json", environment())
        self._describe(tracker, sources)
        return tracker

    def _describe(self, tracker: Tracker, sources: dict[str, str]) -> None:
        """What the verb reads, and what the whole run is."""
        recipe = self.recipe
        for kind in set(DATA) & self.tags.keys():
            context, run = DATA[kind]
            tracker.dataset(f"{recipe.dataset.name} {kind}", digest=str(self.tags[kind]), context=context,
                            source=str(getattr(recipe, run) / kind))
        verbs = ("report", "evaluate", "predict") if has_command(recipe) else ()
        go_on = [command_line(recipe, verb).removeprefix("next: ") for verb in verbs]
        note = run_note(name=recipe.name, about=recipe.about, folder=str(recipe.run_folder), commands=go_on)
        tracker.parent_tags({**sources, "recipe": recipe.name, NOTE: note})

    def __exit__(self, *failure) -> None:
        if self.record is not None:
            self.record.__exit__(*failure)
            _pages.append(self.record.tracker.ids["page"])


def sync_command(recipe: Recipe, folder: Path) -> str:
    """The command that logs what waits in the folder of a run."""
    elsewhere = [] if folder == recipe.run_folder else [f"folder={folder}"]
    if not has_command(recipe):
        recipe = replace(find_recipe("tiny"), folder=str(recipe.run_folder), tracking=recipe.tracking)
    return command_line(recipe, "sync_tracking", *elsewhere).removeprefix("next: ")


def finish_recording(recipe: Recipe, verb: str, register: Callable[[Tracker], None]) -> None:
    """Register the finished model of a training verb that was killed before it did, and log what else waits."""
    if unfinished(recipe.run_folder, verb, chosen_uri(recipe.tracking)):
        with recorded(recipe, verb) as tracker:
            register(tracker)
    else:
        catch_up(recipe.tracking, recipe.run_folder, partial(sync_command, recipe))


@cache
def environment() -> dict[str, Any]:
    """The versions of Python and of all installed packages."""
    from importlib.metadata import distributions
    packages = [distribution.metadata for distribution in distributions()]     # which is read from disk each time
    return {"python": sys.version.split()[0], "packages": {facts["Name"]: facts["Version"] for facts in packages}}


def _module(verb: Verb) -> str:
    return "jobs." + Path(sys.modules[verb.__module__].__file__).stem
