"""One of the paper's image experiments: its task, the tuning, the run."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pontryagin.papers.images.paper import FIGURES, Figure
from pontryagin.papers.images.report import section
from pontryagin.papers.images.tuning import Budget, Scores, best, recalled, tuned
from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay, ReportContext
from pontryagin.run.errors import ExperimentError, at_least
from pontryagin.run.option import option
from pontryagin.run.parts import from_description, task_from
from pontryagin.run.settings import RunSettings, settings_from
from pontryagin.run.task import Task
from pontryagin.run.training import Outcome, run_training

METHODS = ("emsa-paper", "emsa", "sgd", "adagrad", "adam")


@dataclass(frozen=True)
class Request:
    """name: of FIGURES. settings: of the run; rates come from the tuning, the limit of emsa-paper from
    paper_iterations.

    data: folder of the IDX files. tune: iterations at each rate, 0 for each method's default rate. tuning:
    the file of scores, by default beside the run's folder, one for each data set.
    """

    name: str
    settings: RunSettings
    data: str | None = option("folder of the IDX files, else looked for and fetched", None)
    paper_iterations: int = option("after which emsa-paper stops; one costs that of many", 100)
    tune: int = option("iterations of a tuning run at every rate of a grid (emsa-paper: a tenth); 0: no "
                       "tuning, each method's first rate", 150)
    tuning: Path | None = option("file of the tuning's scores, used if there", None)
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(1, paper_iterations=self.paper_iterations)
        at_least(0, tune=self.tune)

    @property
    def figure(self) -> Figure:
        """The paper's."""
        return FIGURES[self.name]

    def tuning_file(self) -> Path:
        """Where the scores are kept."""
        return self.tuning or self.settings.out.parent / f"tuning-{self.figure.dataset}-{self.tune}.json"

    def task(self) -> Task:
        """The paper's network on the figure's images, cross-entropy."""
        folder = {} if self.data is None else {"folder": self.data}
        return task_from("residual-cnn", self.figure.dataset, "cross-entropy", self.model, folder)


def run_images(request: Request, command: str, display: ProgressDisplay) -> Outcome:
    """Tune, train, write. Ctrl-C leaves a checkpoint, from which it goes on with `resume` in the settings."""
    settings = request.settings
    saved = checkpoint.read_last(settings.out / "checkpoint.pt") if settings.resume else None
    if saved is not None:
        task, settings = _resumed(request, saved[0])
    else:
        task = request.task()
    context = ReportContext(request.name, request.figure.title, request.figure.plain(),
                      command=f"reproduce {request.name}", section=lambda directory,
                      summary: section(request.name, directory, summary))
    if request.tune:
        scores = _scores(request, task, settings, saved is not None, display)
        settings = settings if saved else replace(settings, rates={**best(scores), **settings.rates})
        context = replace(context, tuning=scores, tuning_rule=Budget(request.tune).words())
    if saved is None and "emsa-paper" in settings.methods:
        settings = replace(settings, limits={"emsa-paper": request.paper_iterations, **settings.limits})
    return run_training(task, settings, command, display, context=context)


def _scores(request: Request, task: Task, settings: RunSettings, resumed: bool,
            display: ProgressDisplay) -> Scores:
    """Of the tuning: a run that is resumed has its rates already, and only shows them."""
    budget, path = Budget(request.tune), request.tuning_file()
    if resumed:
        return recalled(task, settings, budget, path)
    task.check()
    return tuned(task, settings, budget, path, display)


def _resumed(request: Request, saved: dict[str, Any]) -> tuple[Task, RunSettings]:
    """The run's own task and settings."""
    now = request.settings
    if saved["task"].get("data") != request.figure.dataset:
        raise ExperimentError(f"--resume: {now.out} holds a run on {saved['task'].get('data')}, not on "
                              f"{request.figure.dataset}")
    settings = settings_from(saved["settings"], now.out, checkpoint_every=now.checkpoint_every,
                             tensorboard=now.tensorboard, overwrite=False, resume=True)
    return from_description(saved["task"], {}), settings
