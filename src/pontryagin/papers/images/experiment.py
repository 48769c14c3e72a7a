"""One of the paper's image experiments: its task, the tuning, the run."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pontryagin.papers.images.paper import FIGURES, Figure
from pontryagin.papers.images.report import section
from pontryagin.papers.images.tuning import Scores, best, recalled, tuned, words
from pontryagin.run.callbacks import ProgressDisplay, ReportContext
from pontryagin.run.errors import ExperimentError
from pontryagin.run.folder import last_checkpoint
from pontryagin.run.option import check_numbers, option
from pontryagin.run.parts import from_description, task_from
from pontryagin.run.settings import RunSettings, settings_from
from pontryagin.run.task import Task
from pontryagin.run.training import Outcome, run_training

METHODS = ("emsa-paper", "emsa", "sgd", "adagrad", "adam")


@dataclass(frozen=True)
class Request:
    """name: of FIGURES. settings: of the run; rates come from the tuning, the limit of emsa-paper from
    paper_iterations.

    folder: of the IDX files. tune: iterations at each rate, 0 for each method's default rate. tuning:
    the file of scores, by default beside the run's folder, one for each data set.
    """

    name: str
    settings: RunSettings
    folder: Path | None = option("of the IDX files, else looked for and fetched", None)
    paper_iterations: int = option("after which emsa-paper stops; one costs that of many", 100, least=1)
    tune: int = option("iterations of a tuning run at every rate of a grid (emsa-paper: a tenth); 0: no "
                       "tuning, each method's first rate", 150, least=0)
    tuning: Path | None = option("file of the tuning's scores, used if there", None)
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def figure(self) -> Figure:
        """The paper's."""
        return FIGURES[self.name]

    def tuning_file(self) -> Path:
        """Where the scores are kept."""
        return self.tuning or self.settings.out.parent / f"tuning-{self.figure.dataset}-{self.tune}.json"

    def task(self) -> Task:
        """The paper's network on the figure's images, cross-entropy."""
        folder = {} if self.folder is None else {"folder": str(self.folder)}
        return task_from("residual-cnn", self.figure.dataset, "cross-entropy", self.model, folder)


def run_images(request: Request, command: str, display: ProgressDisplay) -> Outcome:
    """Tune, train, write. Ctrl-C leaves a checkpoint, from which it goes on with `resume` in the settings:
    with the rates that it has, whose scores are only shown."""
    settings, figure, file = request.settings, request.figure, request.tuning_file()
    saved = last_checkpoint(settings.out, settings.resume)
    scores: Scores = {}
    if saved is not None:
        task, settings = _resumed(request, saved)
        if request.tune:
            scores = recalled(task, settings, request.tune, file)
    else:
        task = request.task()
        if request.tune:
            task.check()
            scores = tuned(task, settings, request.tune, file, display)
        limits = {"emsa-paper": request.paper_iterations} if "emsa-paper" in settings.methods else {}
        settings = replace(settings, rates={**best(scores), **settings.rates},
                           limits={**limits, **settings.limits})
    context = ReportContext(request.name, figure.title, figure.plain(), command=f"reproduce {request.name}",
                            section=partial(section, request.name))
    if request.tune:
        context = replace(context, tuning=scores, tuning_rule=words(request.tune))
    return run_training(task, settings, command, display, context=context)


def _resumed(request: Request, saved: dict[str, Any]) -> tuple[Task, RunSettings]:
    """The run's own task and settings."""
    now = request.settings
    if saved["task"].get("data") != request.figure.dataset:
        raise ExperimentError(f"--resume: {now.out} holds a run on {saved['task'].get('data')}, not on "
                              f"{request.figure.dataset}")
    settings = settings_from(saved["settings"], now.out, checkpoint_every=now.checkpoint_every,
                             tensorboard=now.tensorboard, overwrite=False, resume=True)
    return from_description(saved["task"], {}), settings
