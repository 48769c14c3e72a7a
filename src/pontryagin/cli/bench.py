"""`pontryagin bench ...`."""

from pontryagin.bench import report, scaling_report
from pontryagin.bench.benchmark import BenchSettings, run_bench
from pontryagin.bench.scaling import ScalingSettings, run_scaling
from pontryagin.bench.scaling_worker import MAXIMIZERS
from pontryagin.cli.options import Call, Command
from pontryagin.run.figures import left_out
from pontryagin.run.progress import TerminalProgress


def _optimizers(call: Call) -> bool:
    call.say(left_out())
    folder, interrupted = run_bench(call.make(BenchSettings), call.line, TerminalProgress(call.console))
    call.say(report.write_report(folder), f"Report: {folder / 'report.html'}")
    return interrupted


def _scaling(call: Call) -> bool:
    call.say(left_out())
    folder = run_scaling(call.make(ScalingSettings, maximizers=call.values["maximizers"] or MAXIMIZERS),
                         call.line)
    call.say(scaling_report.write_report(folder), f"Report: {folder / 'report.html'}")
    return False


COMMANDS = {
    "optimizers": Command(
        _optimizers,
        "EMSA beside Adam, plain and with the averages of EMSA, AdamW, schedule-free AdamW, SGD with "
        "momentum, Muon, SOAP and Shampoo: cost of an iteration, peak memory, iterations and seconds to "
        "targets. The methods run side by side, an iteration each in turn, on equal weights and batches.",
        (BenchSettings,)),
    "scaling": Command(
        _scaling,
        "Whole iterations of extended MSA by one and by several processes of this machine, one thread "
        "each, in turn: strong and weak scaling, cost by depth and by samples, and the shares of "
        "propagation, moments, maximization and communication.", (ScalingSettings,),
        defaults={"maximizers": "all"}),
}
