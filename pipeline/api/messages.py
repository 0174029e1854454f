"""What the service reads and writes, as its OpenAPI document describes it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.inquiry import Ask
from stages.explain.episodes import Episodes
from stages.explain.lime import Surrogate
from stages.explain.sentence import Sentence
from stages.explain.why_not import Counterfactual

Text = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]
TIME = (  # of 1970 to 2199, a day or an instant, UTC unless it says otherwise
    r"^(19[7-9][0-9]|2[01][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
    r"(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])?)?$"
)
CURSOR = r"^[0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18}$"
Time = Annotated[
    str,  # read by `answers.read_time`, whose error says more than a pattern
    Field(examples=["2022-12-28T21:00:00Z"], json_schema_extra={"pattern": TIME}),
]
Cursor = Annotated[
    str,
    Field(
        description="`next` of the page before, unchanged.",
        json_schema_extra={"pattern": CURSOR},
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Literal["SELL", "HOLD", "BUY"]
Status = Literal["fired", "unproven", "hold", "abstain"]
Strength = Literal["weak", "medium", "strong"]
Asset = Annotated[str, Field(min_length=1, max_length=200, description="As in the data.")]
LAST = 2**63 - 1


class Filters(BaseModel):
    """Which signals: what is left out does not narrow."""

    model_config = ConfigDict(extra="forbid")

    asset: Asset | None = None
    side: Side | None = None
    status: Status | None = None
    strength: Strength | None = None
    model: Text | None = Field(None, description="Digest of an artifact.")
    config: Text | None = Field(None, description="Digest of settings.")
    strategy: Text | None = None


class Span(Filters):
    """Which signals, by the time of the decision too; both ends included, UTC."""

    since: Time | None = None
    until: Time | None = None


class Paging(Span):
    """A page of signals."""

    n: int = Field(50, ge=1, le=500, description="Signals on the page.")
    cursor: Cursor | None = None
    emitted: bool | None = Field(None, description="Whether the rules of emission let it leave.")


class Active(Filters):
    """Signals that say something at a time."""

    at: Time | None = Field(None, description="UTC; default now.")
    n: int = Field(200, ge=1, le=1000, description="The newest of them.")
    emitted: bool | None = Field(None, description="Whether the rules of emission let it leave.")


class Grouping(Span):
    """How signals went, by one of their columns."""

    by: Literal["strategy", "asset", "strength", "model", "config", "side", "status"] = "strategy"


class Trend(Filters):
    """How signals went over time."""

    days: int = Field(30, ge=1, le=3660, description="Length of a period.")


class Outcome(BaseModel):
    """What came of a signal once its label had ended."""

    label: Side
    ret: Number = Field(description="Return of the asset over the horizon, a fraction.")
    excess: Number | None = Field(description="Beyond that of the market, a fraction.")
    ended: Time


class Signal(BaseModel):
    """A stored signal: `schemas/signal-v1.json`, with what the store knows of it."""

    model_config = ConfigDict(extra="allow")

    id: int = Field(ge=1, le=LAST, description="1, 2, … in the order of storing.")
    revision: int = Field(ge=0, description="A later one restates the same decision.")
    strategy: str
    stored: Time
    emitted: bool | None = Field(description="Whether it left; null: no rules were asked.")
    withheld: str | None = Field(description="Why it did not leave.")
    outcome: Outcome | None = Field(description="null until the label has ended.")
    schema_version: Literal["1"]
    asset: str
    time: Time
    session: str | None
    side: Side | None
    status: Status
    strength: Strength | None
    probabilities: dict[str, Share] | None
    confidence: Share | None = Field(description="Calibrated probability of the side.")
    certainty: Share | None = Field(description="Probability that the edge exceeds its cost.")
    uncertainty: dict[str, float | None]
    why_not: list[dict[str, Any]]
    stages: dict[str, float | bool | None]
    explanation: dict[str, Any] | None
    prices: dict[str, float]
    expires: Time
    model: str
    config: str


INQUIRY: dict[str, JsonValue] = {
    "stored": "2022-12-29T08:00:00.000000Z",
    "asked": {"why_not": False, "episodes": 0, "lime": False, "effort": "full"},
    "sentence": {
        "text": "Leans BUY (p 0.40, certainty 0.38), mainly because market log return over 5 bars "
        "is middling (-0.0101); it is held back because its certainty is below the 0.80 asked for.",
        "supports": ["market_return_5"],
        "opposes": [],
    },
    "change": None,
    "lean": None,
    "episodes": None,
    "lime": None,
}


class Inquiry(BaseModel):
    """What was found out about a signal when somebody asked; null: not asked, or it abstains."""

    stored: Time
    asked: Ask
    sentence: Sentence = Field(description="The signal in words.")
    change: Counterfactual | None = Field(description="The smallest change that turns it.")
    lean: Counterfactual | None = Field(
        description="Where nothing turns it: what makes the opposite side lead."
    )
    episodes: Episodes | None = Field(description="What happened when it last looked like this.")
    lime: Surrogate | None = Field(description="A second opinion on the reasons.")


class OneSignal(Signal):
    """A stored signal, and what was found out about it last."""

    inquiry: Inquiry | None = Field(description="null: nobody has asked and stored the answer.")


class SignalPage(BaseModel):
    """Signals, newest first."""

    signals: list[Signal]
    next: str | None = Field(description="Cursor of the next page; null: this was the last.")


class SignalList(BaseModel):
    """Signals that say something, newest first."""

    at: Time
    count: int = Field(ge=0, description="How many there are, listed or not.")
    signals: list[Signal]


BAR: dict[str, JsonValue] = {"asset": "AAPL", "time": "2022-12-28", "close": 126.04}


class PredictIn(BaseModel):
    """Bars to predict from: the newest bar of each asset gets a signal."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"bars": [BAR]}]})

    bars: list[dict[str, str | Number | None]] = Field(
        min_length=1,
        description="A row for each asset and time, with the columns of the data that the model "
        "was trained on (at least asset, time and close), in any order, and as much history as "
        "the model needs: `warmup` of `/v1/health`.",
    )
    as_of: Time | None = Field(
        None, description="UTC; signals that have expired by then abstain. Default: newest bar."
    )
    explain: bool = Field(True, description="false leaves the reasons out, and is faster.")
    keep: bool = Field(False, description="true adds the signals to the store before answering.")


class Prediction(BaseModel):
    """Signals, all of one model."""

    model: str = Field(description="Digest of the model that all signals are from.")
    batch: int = Field(ge=1, description="Requests that shared its run.")
    stored: int | None = Field(description="Signals that were new to the store; null: not asked.")
    signals: list[dict[str, Any]] = Field(description="As schemas/signal-v1.json describes them.")


class Group(BaseModel):
    """How the signals of a group went; fractions, before costs."""

    group: str | None
    signals: int
    hit_rate: Number | None
    confidence: Number | None
    brier: Number | None
    mean_return: Number | None
    deviation: Number | None
    mean_excess: Number | None


class Performance(BaseModel):
    """How signals with a side went."""

    by: str
    groups: list[Group]


class Bin(BaseModel):
    """Signals of like confidence, and how often they came true."""

    confidence: Number
    accuracy: Number
    low: Number
    high: Number
    rows: int


class Period(BaseModel):
    """Signals of a stretch of time."""

    begins: Time
    signals: int
    hit_rate: Number
    confidence: Number
    mean_return: Number


class Calibration(BaseModel):
    """Whether confidence means what it says: by its size, and over time."""

    days: int
    bins: list[Bin]
    periods: list[Period]


class Drift(BaseModel):
    """How far the inputs of recent signals lie from those of the training."""

    begins: Time
    signals: int
    novelty: Number | None = Field(description="Mean; 1 is as far as the training's own.")
    epistemic: Number | None
    abstained: Share


class ModelHealth(BaseModel):
    """The model in service, and what is known of its worth."""

    model: str
    loaded: Time
    learned_until: Time
    warmup: int = Field(description="Bars of history that a signal needs.")
    universe: list[str]
    skill: dict[str, Any] = Field(description="The skill test: nothing fires before it passes.")
    coverage: dict[str, Any] | None = Field(description="How often intervals held the return.")
    leak_audit: str
    evaluation: dict[str, Any] | None
    drift: list[Drift]
    fault: str | None = Field(description="Why a newer champion is not in service.")


class ModelLine(BaseModel):
    """A model of the root."""

    model: str
    name: str
    champion: bool
    in_service: bool
    facts: dict[str, Any]


class Models(BaseModel):
    """The models of the root, newest first."""

    models: list[ModelLine]


class LastRun(BaseModel):
    """The last run that stored signals, or said that there were none."""

    at: Time
    age_seconds: Number
    kind: str


class Ready(BaseModel):
    """Whether the service can answer, and what stands in the way."""

    ready: bool
    model: str | None
    obstacles: list[str]
    last_run: LastRun | None


class State(BaseModel):
    """State and figures of the service, of its runs and of its streams."""

    ready: Ready
    schedule: dict[str, Any] | None = Field(
        description="Last good run and its age, errors, seconds of the steps; null: none ran."
    )
    run: dict[str, Any] | None = Field(
        description="What the newest run left: signals, shares that were valid, emitted, abstained."
    )
    stream: dict[str, Any] = Field(description="Counts, lag and latency of each source.")
    answers: dict[str, Any] = Field(description="Milliseconds of the last 1,000 answers.")


class Alive(BaseModel):
    """That the process answers."""

    alive: Literal[True]
