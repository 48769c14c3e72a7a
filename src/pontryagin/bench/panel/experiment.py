"""`pontryagin bench panel`: which networks, in which order, into which files."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pontryagin.bench.panel import contest, prices, regret
from pontryagin.bench.panel.contest import RIVALS, Protocol
from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks import NETWORKS, SUBSET
from pontryagin.bench.panel.rows import FILE, Rows, check_starts, forget, read_all
from pontryagin.bench.panel.trial import Outcome, Trial, evaluated, started, train
from pontryagin.bench.panel.tuning import CENTERS, STAGES
from pontryagin.bench.racers import METHODS
from pontryagin.run.environment import threads
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.files import Table, prepare, take, write_json
from pontryagin.run.methods import choose
from pontryagin.run.option import SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.study import described as opening


@dataclass(frozen=True)
class PanelSettings:
    """EMSA as it comes, and with its rate found, on networks of many kinds beside AdamW, Muon, SOAP and
    schedule-free AdamW, each tuned at the run's own length on the same budget. Every finished run is a row of
    runs.csv: --resume goes on after the last one.
    """

    networks: tuple[str, ...] | None = option("all, or names with commas; see --list", None)
    methods: tuple[str, ...] | None = option(
        f"rivals, with commas: {', '.join(name for name in CENTERS if name != 'emsa')}", RIVALS)
    seconds: float = option("of process time that a run of AdamW has on the machine of the calibration; the "
                            "iterations follow from it", 30.0, least=0)
    seeds: Seeds = option(SEEDS, 3)
    tuning: tuple[str, ...] | None = option(f"what is tuned, with commas: {', '.join(STAGES)}", STAGES)
    subset: bool = option(f"a third of the networks: {', '.join(SUBSET)}", False)
    share: str = option("k/n: every n-th network from the k-th, for n processes side by side", "1/1")
    prices: bool = option("measure what an iteration costs, and nothing else", False)
    regret: bool = option("measure what the default rate of EMSA costs, and nothing else", False)
    report_only: bool = option("report the runs in the folder and below it, as of several shares", False)
    list: bool = option("print the networks, and run nothing", False)
    resume: bool = option("go on in the folder: runs that are there are not run again", False)
    redo: str = option("with --resume: methods with commas whose runs are done anew, such as emsa", "")
    folder: str | None = option("of MNIST's IDX files (or PONTRYAGIN_DATA)", None)
    out: Path = option("folder for the results, new or empty", Path("runs/panel"))
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        seed_numbers(self.seeds)
        for what, given, known in (("network", self.networks, NETWORKS), ("method", self.rivals, CENTERS),
                                   ("tuning", self.tuning, STAGES), ("method", self.again, CENTERS)):
            if wrong := [name for name in given or () if name not in known]:
                raise unknown(what, wrong, known)
        if not self.seconds > 0:
            raise ExperimentError(f"--seconds: expected a number above 0, found {self.seconds}")
        if self.redo and not self.resume:
            raise ExperimentError("--redo does runs of a folder anew: add --resume")
        _part(self.share)

    @property
    def rivals(self) -> tuple[str, ...]:
        """By name."""
        return self.methods or RIVALS

    @property
    def again(self) -> tuple[str, ...]:
        """The methods whose rows are dropped."""
        return tuple(name.strip().removesuffix("-tuned") for name in self.redo.split(",") if name.strip())

    @property
    def protocol(self) -> Protocol:
        """Of every network."""
        return Protocol(self.rivals, self.seconds, seed_numbers(self.seeds), self.tuning or STAGES)

    @property
    def chosen(self) -> Sequence[Network]:
        """The networks, in their order."""
        names = self.networks or (SUBSET if self.subset else tuple(NETWORKS))
        first, step = _part(self.share)
        return [NETWORKS[name] for name in names][first - 1::step]


def described(network: Network) -> str:
    """A line of --list."""
    return f"{network.name} ({network.kind})" + (", tuned on" if network.tuned_on else "")


def _part(share: str) -> tuple[int, int]:
    first, _, step = share.partition("/")
    if not (first.isdigit() and step.isdigit() and 1 <= int(first) <= int(step)):
        raise ExperimentError(f"--share: expected k/n such as 1/2, found {share!r}")
    return int(first), int(step)


@dataclass
class Results:
    """What has been found so far, by network."""

    contests: dict[str, Any] = field(default_factory=dict)
    regrets: dict[str, Any] = field(default_factory=dict)
    prices: dict[str, Any] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    interrupted: bool = True


class MissingRunError(Exception):
    """A run that only a report asks for."""


def run_panel(settings: PanelSettings, command: str, progress: Progress) -> Results:
    """Do what settings ask for, and write summary.json into settings.out after every network."""
    if not settings.report_only:
        choose(settings.rivals, METHODS)
        for network in settings.chosen[:1]:
            network.work(settings.folder)  # what is wrong with the data is said before a folder is made
    elif not settings.out.is_dir():
        raise ExperimentError(f"--report-only --out {settings.out}: there is no such folder")
    going_on = settings.resume and (settings.out / FILE).exists()
    out = settings.out if going_on or settings.report_only else prepare(settings.out, settings.overwrite)
    results, lock = Results(), FileLock(out / ".lock")
    take(lock)
    try:
        with threads(1), suppress(KeyboardInterrupt):
            if settings.prices:
                _price(settings, out, progress, results)
            elif settings.report_only:
                _derive(settings, read_all(out), results)
                if not results.contests and not results.regrets:
                    raise ExperimentError(f"{out}: expected all runs of at least one network, with these "
                                          "--seconds, --methods, --seeds and --tuning; give those of the "
                                          "runs")
            else:
                _run(settings, out, progress, results, lambda: _save(settings, command, results))
            results.interrupted = False
        _save(settings, command, results)
    finally:
        lock.release()
    return results


def _save(settings: PanelSettings, command: str, results: Results) -> None:
    write_json(settings.out / "summary.json", {
        **opening("panel", settings, command), "interrupted": results.interrupted,
        "networks": {name: {"kind": one.kind, "tuned_on": one.tuned_on} for name, one in NETWORKS.items()},
        "contests": results.contests, "regrets": results.regrets, "prices": results.prices,
        "unfinished": results.unfinished})


def _derive(settings: PanelSettings, rows: Mapping[Trial, Outcome], results: Results) -> None:
    """All that follows from the rows, of the networks of which all runs are there."""

    def ask(trial: Trial) -> Outcome:
        if trial not in rows:
            raise MissingRunError
        return rows[trial]

    results.unfinished.clear()
    for network in settings.chosen:
        with suppress(MissingRunError):
            results.regrets[network.name] = regret.summarize(regret.hold(network, settings.seconds, ask))
        try:
            held = contest.hold(network, settings.protocol, ask)
            results.contests[network.name] = contest.summarize(held)
        except MissingRunError:
            if not settings.regret:
                results.unfinished.append(network.name)


def _run(settings: PanelSettings, out: Path, progress: Progress, results: Results,
         save: Callable[[], None]) -> None:
    if settings.again and (out / FILE).exists():
        forget(out, settings.again)
    rows = Rows(out)
    try:
        for network in settings.chosen:
            ask = _asking(network, settings, rows, progress)
            if settings.regret:
                regret.hold(network, settings.seconds, ask)
            else:
                contest.hold(network, settings.protocol, ask)
            _derive(settings, rows.found, results)
            save()
    finally:
        rows.close()


def _asking(network: Network, settings: PanelSettings, rows: Rows,
            progress: Progress) -> Callable[[Trial], Outcome]:
    """Runs what is not known yet; the data is loaded by the first such run."""
    made: list[Work] = []

    def ask(trial: Trial) -> Outcome:
        if trial not in rows.found:
            if not made:
                made.append(network.work(settings.folder))
                _check_start(made[0], [one for one in rows.found.items() if one[0].network == network.name])
            title = (f"{trial.network}: {trial.method} {trial.rate:g}, decay {trial.decay:g}, warm-up "
                     f"{trial.warmup:g}, seed {trial.seed}")
            with progress.task(title, trial.iterations) as advance:
                rows.add(trial, train(trial, made[0], advance))
        return rows.found[trial]

    return ask


def _check_start(work: Work, known: Sequence[tuple[Trial, Outcome]]) -> None:
    """That a run of now begins as those that are there did. Raises ExperimentError."""
    for trial, outcome in known[:1]:
        run = started(replace(trial, method="adamw"), work)
        check_starts([(trial, outcome.points[0][2]), (trial, evaluated(run, work, work.evaluation()))])


def _price(settings: PanelSettings, out: Path, progress: Progress, results: Results) -> None:
    with Table(out / "prices.csv", prices.COLUMNS) as table:
        found: dict[str, Mapping[str, prices.Price]] = {}
        for network in settings.chosen:
            work = network.work(settings.folder)
            with progress.task(network.name, 1) as advance:
                found[network.name] = prices.measure(network, work, settings.rivals, advance)
            table.add_all(prices.rows(network.name, found[network.name]))
            table.flush()
            results.prices = {"networks": {name: {method: vars(price) for method, price in each.items()}
                                           for name, each in found.items()},
                              "classes": prices.summarize(found)}
