"""From one JSON line a job to two Markdown tables: every market, and every claim."""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from experiments.benchmarks.truth.job import ROWS
from stages.markets import NOISE, PLANTED

SKILL = 0.005  # nats between the odds and the base rate below which there is nothing to share
SCREENED = 0.4  # share of the false positives of stage 1 that the stages behind it should drop
MANY = 100  # seeds from which on a share of them says something
COLUMNS = (
    *("market", "accuracy", "Bayes", "of Bayes", "skill ratio", "information ratio"),
    *("ECE", "log-loss less best member's", "Brier less best member's", "fires"),
    *("stage 1", "stage 2", "stage 3"),
)


class Runs:
    """The jobs of one row of the table, a value a seed."""

    def __init__(self, records: list[dict]) -> None:
        self.records = sorted(records, key=lambda record: record["seed"])

    def of(self, figure: str, model: str = "pipeline") -> np.ndarray:
        values = [record["models"].get(model, {}).get(figure) for record in self.records]
        return np.array([np.nan if v is None else v for v in values], dtype=float)

    def status(self, *names: str) -> np.ndarray:
        return np.array([sum(r["status"].get(n, 0.0) for n in names) for r in self.records])

    def reasons(self, name: str) -> np.ndarray:
        return np.array([record["reasons"][name] for record in self.records])

    def screened(self, by: str) -> np.ndarray:
        """Share of the false positives of stage 1 that are dropped at a recall of 0.9."""
        found = [record.get("screened", {}).get(by) for record in self.records]
        return np.array([np.nan if share is None else share for share in found], dtype=float)

    @property
    def proven(self) -> np.ndarray:
        """1 where the skill test passed at any time."""
        return np.array([float(r["skill"]["proven"]) for r in self.records if "skill" in r])

    @property
    def skill(self) -> bool:
        """Whether there is anything to find."""
        return bool((self.of("base_log_loss") - self.of("bayes_log_loss")).mean() > SKILL)

    def best_member(self, loss: str) -> str:
        """The member with the lowest mean loss over the seeds."""
        members = self.records[0]["members"]
        return min(members, key=lambda member: self.of(loss, member).mean())

    def against_best(self, loss: str) -> np.ndarray:
        return self.of(loss) - self.of(loss, self.best_member(loss))

    def worse(self, loss: str) -> bool:
        """Whether the whole interval of the paired difference lies above 0."""
        gap = self.against_best(loss)
        return bool(gap.mean() - half(gap) > 0)


def half(x: np.ndarray) -> float:
    """Half of the 95 % Student interval of the mean over seeds; NaN for a single seed."""
    if len(x) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))


def markdown(records: Iterable[dict]) -> str:
    """Both tables, for the rows that have at least one finished job."""
    by_row: dict[str, list[dict]] = {name: [] for name in ROWS}
    for record in records:
        by_row[record["row"]].append(record)
    runs = {name: Runs(found) for name, found in by_row.items() if found}
    lines = [" | ".join(_cells(name, run)) for name, run in runs.items()]
    markets = _table(COLUMNS, lines)
    claims = [" | ".join(cells) for cells in _claims(runs)]
    return f"{markets}\n\n{_table(('claim', 'goal', 'measured', 'holds'), claims)}"


def _table(columns: Iterable[str], lines: list[str]) -> str:
    columns = list(columns)
    head = [" | ".join(columns), "|".join(["---"] * len(columns))]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in head + lines)


def _cells(name: str, run: Runs) -> list[str]:
    accuracy, bayes = run.of("accuracy"), run.of("bayes_accuracy")
    shares = ["", ""]
    if run.skill:
        shares = [_said(run.of(f)) for f in ("skill_ratio", "information_ratio")]
    return [
        name,
        _said(accuracy),
        _said(bayes),
        _said(accuracy / bayes),
        *shares,
        f"{run.of('ece').mean():.3f} ≤ {run.of('ece_high').mean():.3f}",
        _against(run, "log_loss"),
        _against(run, "brier"),
        _said(100 * run.status("fired", "unproven"), ".1f", " %"),
        *(_said(run.of("accuracy", f"stage {k}")) for k in (1, 2, 3)),
    ]


def _against(run: Runs, loss: str) -> str:
    mark = " **worse**" if run.worse(loss) else ""
    return f"{_said(run.against_best(loss), '+.4f')} {run.best_member(loss)}{mark}"


def _said(x: np.ndarray, form: str = ".3f", unit: str = "") -> str:
    spread = half(x)
    mean = f"{x.mean():{form}}{unit}"
    return mean if np.isnan(spread) else f"{mean} ±{spread:{form.lstrip('+')}}"


def _claims(runs: dict[str, Runs]) -> Iterable[list[str]]:
    """Claim, goal, what was measured, and whether its mean holds."""
    if "mixed" in runs:
        run = runs["mixed"]
        share = run.of("accuracy") / run.of("bayes_accuracy")
        yield _claim("`mixed`, SNR 1: accuracy of Bayes", share, 0.95)
        yield _claim("`mixed`, SNR 1: skill ratio", run.of("skill_ratio"), 0.85)
        yield _claim("`mixed`, SNR 1: information ratio", run.of("information_ratio"), 0.80)
    if "sequence" in runs:
        text = "`sequence`: accuracy that stage 2 adds where only a sequence tells"
        yield _claim(text, _added(runs["sequence"], 2), 0.03)
    if "gated" in runs:
        text = "`gated`: accuracy that stage 3 adds where only the context sees the regime"
        yield _claim(text, _added(runs["gated"], 3), 0.02)
    for name in (name for name in runs if ROWS[name][0] in PLANTED):
        yield from _of_screen(name, runs[name])
    if "tabular SNR 2" in runs:
        yield from _of_members(runs["tabular SNR 2"])
    yield from _of_calibration(runs)
    for name in ("mixed", "tabular"):
        if name in runs:
            yield from _of_confidence(f"`{name}`, SNR 1", runs[name])
    for name in (name for name in NOISE if name in runs):
        fires = 100 * runs[name].status("fired", "unproven")
        yield _claim(f"`{name}`: fires by the posterior rule", fires, 2, "≤", " %")
        proven = runs[name].proven
        if len(proven) >= MANY:
            text = f"`{name}`: seeds of {len(proven)} whose skill test passed"
            yield _claim(text, 100 * proven, 5, "≤", " %")


def _of_screen(name: str, run: Runs) -> Iterable[list[str]]:
    """Where the exact odds could do it, what the pipeline does."""
    best = run.screened("Bayes").mean()
    if best >= SCREENED:
        text = f"`{name}`: false positives of stage 1 dropped at a recall of 0.9 (Bayes {best:.3f})"
        yield _claim(text, run.screened("pipeline"), SCREENED)


def _of_members(run: Runs) -> Iterable[list[str]]:
    where = "`tabular`, SNR 2: accuracy"
    for model, name, goal in (
        ("xgboost", "XGBoost", 0.65),
        ("forest", "the forest", 0.60),
        ("lstm", "the LSTM", 0.62),
        ("pipeline", "the pipeline", 0.67),
    ):
        yield _claim(f"{where} of {name}", run.of("accuracy", model), goal)
    short = run.of("bayes_accuracy") - run.of("accuracy")
    yield _claim(f"{where} that the pipeline lacks to Bayes", short, 0.02, "≤")


def _of_calibration(runs: dict[str, Runs]) -> Iterable[list[str]]:
    planted = [run for name, run in runs.items() if ROWS[name][0] in PLANTED]
    if planted:
        for figure, text in (("ece", "debiased ECE"), ("ece_high", "its 95 % bound")):
            worst = max(planted, key=lambda run: run.of(figure).mean())
            name, rows = worst.records[0]["row"], worst.records[0]["rows"]
            where = f"{text}, worst planted market (`{name}`, {rows:,} rows a seed)"
            yield _claim(where, worst.of(figure), 0.02, "≤")
    for loss, text in (("log_loss", "log-loss"), ("brier", "Brier score")):
        worse = [name for name, run in runs.items() if run.worse(loss)]
        said = f"{len(worse)} of {len(runs)}" + (f": {', '.join(worse)}" if worse else "")
        text = f"markets where the {text} is surely worse than the best member's"
        yield [text, "0", said, "no" if worse else "yes"]


def _of_confidence(where: str, run: Runs) -> Iterable[list[str]]:
    text = f"{where}: accuracy of the"
    yield _claim(f"{text} most confident tenth", run.of("accuracy_decile_10"), 0.80)
    yield _claim(f"{text} least confident tenth", run.of("accuracy_decile_01"), 0.60, "≤")
    text = f"{where}: correlation of the reasons with the planted contributions"
    yield [text, "", _said(run.reasons("correlation")), ""]
    text = f"{where}: share of the reasons on inputs that move nothing"
    yield _claim(text, 100 * run.reasons("dummies"), 5, "≤", " %")


def _added(run: Runs, stage: int) -> np.ndarray:
    """Accuracy of a stage less that of the stage before it."""
    return run.of("accuracy", f"stage {stage}") - run.of("accuracy", f"stage {stage - 1}")


def _claim(text: str, x: np.ndarray, goal: float, sense: str = "≥", unit: str = "") -> list[str]:
    value, form = float(x.mean()), ".1f" if unit else ".3f"
    holds = value >= goal if sense == "≥" else value <= goal
    verdict = "yes" if holds else f"no, by {abs(value - goal):{form}}{unit}"
    return [text, f"{sense} {goal:g}{unit}", _said(x, form, unit), verdict]
