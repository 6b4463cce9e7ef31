"""The shape of the report: what ``report --json`` prints and what the plugin sends to the front end.

``frontend/src/wire.ts`` is generated from these classes; a string below a field is its comment there. No number in a
report is NaN or infinite: what is not known is null. Keys are added and never renamed or removed.
"""

from __future__ import annotations

from typing import Literal, TypedDict

Severity = Literal["error", "warning", "info", "none"]
Status = Literal["pass", "another_cause", "fail", "not_applicable", "not_evaluated", "error"]
Never = Literal["never"]
Ended = Literal["planned", "early", "interrupted"]


class Forecast(TypedDict):
    """Inference loss once the moving statistics have advanced by so many updates."""

    updates: int
    loss: float


class ReplayedLoss(TypedDict):
    """Inference loss now, had the momentum been this."""

    momentum: float
    loss: float


class ReplayedDistance(TypedDict):
    """A layer's distance now, had the momentum been this."""

    momentum: float
    distance: float


class PairedLosses(TypedDict):
    """Losses of the same batches at the same weights under several normalizations. Null where not measured."""

    step: int | None
    batches: int | None
    """Batches of the whole last stretch of training that these are means over; null for those of the last probe."""
    training: float | None
    """Batch statistics as in fit, training-only layers on."""
    batch: float | None
    """Batch statistics in every layer, training-only layers off."""
    inference: float | None
    """Moving statistics."""
    recalibrated: float | None
    """Other statistics in place of the moving ones: the mean of the other batches' at the present weights, or for a
    probe the mean of the last windows of training. Layers that training leaves alone keep theirs, as with
    ``recalibrate(model, data)``; null where all do."""
    recalibrated_long: float | None
    """The same over more windows."""
    updated: float | None
    """Inference on the same batch after the weight update that followed."""
    recalibrated_now: float | None
    """Mean statistics of other batches at the present weights; ``stale`` and ``noise`` use it where it is known."""
    dropout: float | None
    """training - batch: dropout and other training-only layers."""
    stale: float | None
    """inference - recalibrated: stale statistics."""
    noise: float | None
    """recalibrated - batch: batch noise."""
    metrics: dict[str, dict[str, float | None]]
    """Compiled metric -> loss kind -> its value over the same batches."""
    not_evaluated: dict[str, str]
    """Loss kind -> why it is not measured."""
    overflowed: list[str]
    """Loss kinds that were measured and are infinite."""
    forecast: list[Forecast]
    replayed: list[ReplayedLoss]


class Losses(PairedLosses, total=False):
    """Paired losses on training batches."""

    validation: PairedLosses
    """The same kinds on validation data, absent where there are none."""
    share_undone: float | None
    """Share of the steps that inference undoes, 0 to 1; absent for a probe, null where nothing is undone."""
    as_at_step: int | None
    """Step at which the loss with batch statistics came down to what inference has now; null where nothing is undone,
    or where inference is worse than at any step."""
    harm: float | None
    """What inference loses against ``rival_loss``, in the unit that severity goes by: a warning from 0.5, an error
    from 1. A drop of a metric counts too. Null where it was not measured or is infinite."""
    harm_is_sure: bool
    """Whether it is larger than two standard errors; less is chance, and no finding rests on it."""
    rival: str
    """What inference is held against, in words."""
    rival_loss: float | None
    """Its loss over the same batches, or over new batches of the same rows; null where ``batches`` is."""


class Evidence(TypedDict):
    """One number beside the value that it is compared with."""

    label: str
    value: float | str | None
    limit: float | str | None
    unit: str
    against: str
    """What the limit is: "threshold", "warning from", "tolerance", "run length"."""


class RuledOut(TypedDict):
    """A cause with the same symptoms that is ruled out."""

    cause: str
    reason: str
    """What was measured of it."""


class Finding(TypedDict):
    """One cause of the table and what became of it in this run."""

    rule: str
    """Id of the cause; what ``ignore`` takes."""
    status: Status
    """``another_cause``: it shows, and ``explained_by`` names the cause behind it."""
    severity: Severity
    """``none`` unless the status is ``fail``."""
    title: str
    summary: str
    """With the numbers; for other statuses than ``fail`` it says why."""
    description: str
    layers: list[str]
    layer_indices: list[int]
    first_step: int | None
    last_step: int | None
    steps_to_converge: int | Never | None
    """Training steps from now; "never" where waiting does not help; null where it does not apply."""
    steps_interval: list[int | Never] | None
    """[low, high] in training steps, 80%; null where no interval is known."""
    steps_reliable: bool | None
    """False while there is too little data for an estimate; null where it does not apply."""
    share: float | None
    """Share of the loss gap that the cause takes, 0 to 1; null where it was not measured."""
    evidence: dict[str, Evidence]
    ruled_out: list[RuledOut]
    rescue: str
    """Code that repairs this model; runs as printed, given ``model`` and ``data``. May be empty."""
    rescue_loss: float | None
    """Inference loss that was measured with the rescue in effect; null without one, and where it was not measured."""
    fix: str
    """Code for the next training; runs as printed. May be empty."""
    next: str
    """What to expect if the fix was right."""
    silenced: bool
    """The user silenced it for all its layers."""
    explained_by: str | None
    """Id of the cause that it yields to; set where the status is ``another_cause``."""


class LayerReport(TypedDict):
    """One BatchNorm layer at the end of the record."""

    index: int
    name: str
    channels: int
    momentum: float
    momentum_effective: float | None
    epsilon: float
    axis: int
    kind: str
    order: int
    state: str
    updates: int | None
    distance: float | None
    distance_p95: float | None
    steps_to_converge: int | Never | None
    """Updates until 95% of the channels are within tolerance."""
    steps_to_converge_worst: int | Never | None
    """The same for the worst channel."""
    steps_interval: list[int | Never] | None
    """[low, high] in updates, 80%; null where no interval is known."""
    steps_reliable: bool | None
    """False while there is too little data for an estimate; null where it does not apply."""
    steps_reason: str
    """Why never, or why no estimate is given."""
    error_p95: float | None
    """Relative errors of the moving statistics, which shrink by the momentum at each update."""
    error_max: float | None
    error_renewed: float | None
    """Part of ``error_p95`` that the movement of the batch statistics keeps up."""
    mean_error: float | None
    variance_ratio: float | None
    noise_mean: float | None
    """Standard deviation of one batch's mean, in channel standard deviations."""
    drift: float | None
    """Drift of the batch statistics an update, in channel standard deviations; 0 where not significant."""
    permanent_lag: float | None
    """drift * momentum / (1 - momentum)."""
    worst_channel: int | None
    attribution: float | None
    """Loss with batch statistics in every layer but this one."""
    replayed: list[ReplayedDistance]
    findings: list[str]
    """Ids of the findings that name this layer."""


class RunEvent(TypedDict):
    """Something that happened to the run at a step."""

    step: int
    kind: str
    text: str
    layers: list[int]


class Overview(TypedDict):
    """The report of one run."""

    format: int
    run: str
    verdict: str
    """``headline`` and ``reasons``, joined."""
    headline: str
    """What the losses say, in one sentence."""
    reasons: list[str]
    """Why, one sentence or two each: the causes that count, what is silenced, what could not be judged."""
    severity: Severity
    checked: bool
    """Whether this is a check of one moment (``tb_bnlens.check``), not a record of training."""
    last_step: int | None
    """For a check the steps that the optimizer has counted, 0 where it has none."""
    losses: Losses
    findings: list[Finding]
    """Failures by severity, then the rest."""
    layers: list[LayerReport]
    events: list[RunEvent]
    notes: list[str]
    """What could not be recorded, what the reader left out, what TensorBoard dropped."""
    planned_steps: int | None
    ended: Ended | None
    """How training ended; null while it runs, and where nothing says it: it was killed, or the record is an import."""
    ended_step: int | None
    """Steps made when it ended."""
    last_record: float | None
    """Wall time of the last record or probe, seconds since 1970."""
    imported: bool
    """The record was made from checkpoints, after training."""
    framework: str
    """``"keras"``, ``"tf_keras"`` (Keras 2), ``"torch"`` or ``"flax"``: in whose words the findings are. Every
    ``momentum`` in a report is the share that an update keeps, whatever the framework; PyTorch's is 1 minus it."""
    batch_size: int | None
    replicas: int
    tolerance: float
    overhead: float | None
    """Share of training time that recording took."""
    records: int
    probes: int


class Comparison(TypedDict):
    """What differs between two runs, each pair in their order."""

    runs: list[str]
    severity: list[Severity]
    framework: list[str]
    """In whose convention a momentum of the run is to be shown; the values are shares that an update keeps."""
    settings: dict[str, list[object]]
    """Name -> the two values, only where they differ."""
    losses: dict[str, list[float | None]]
    metrics: dict[str, dict[str, list[float | None]]]
    """Compiled metric -> loss kind -> the two values, for the metrics that either run was measured in."""
    findings: dict[str, list[str]]
    """``gone``, ``new`` and ``stayed`` -> ids of findings that count."""
    layers: list[dict[str, object]]
    """Layers in both runs whose momentum or state differs: ``name`` in the first run, ``names`` in both, ``momentum``,
    ``state`` and ``distance``."""
    distances: list[dict[str, object]]
    """All layers in both runs whose distances are known: ``name``, ``names`` and ``distance``, the largest difference
    first."""
    only: list[list[str]]
    """Names of layers that one run alone has."""


class Reports(TypedDict):
    """The reports of several runs."""

    format: int
    runs: list[Overview]


class Failure(TypedDict):
    """A run that has no report."""

    run: str
    reason: str


class Report(Reports, total=False):
    """What ``report --json`` prints."""

    failures: list[Failure]
    """Runs that could not be judged, with the reason; only where there are any."""
    comparison: Comparison
    """With ``--compare`` only."""


class MetricPair(TypedDict):
    """A compiled metric in the two modes that matter."""

    name: str
    batch: float | None
    inference: float | None


class RunSummary(TypedDict):
    """What the table of runs shows of an analysed run."""

    severity: Severity
    headline: str
    cause: str | None
    """Title of the most severe finding that counts."""
    causes: int
    """How many findings count."""
    silenced: int
    """How many findings the user silenced."""
    step: int | None
    """Step of the losses."""
    batches: int | None
    """Batches that the losses are means over; null for those of the last probe."""
    batch: float | None
    inference: float | None
    harm: float | None
    """As in the losses of the report."""
    harm_is_sure: bool
    metric: MetricPair | None
    """The first compiled metric, over the same batches; null where none was measured."""
    momentum: list[float]
    """[lowest, highest] over the layers; empty without layers."""
    layers: int
    last_step: int | None
    planned_steps: int | None
    ended: Ended | None
    ended_step: int | None
    last_record: float | None
    checked: bool
    imported: bool
    framework: str


class RunEntry(TypedDict):
    """A run in the list of runs."""

    run: str
    severity: Severity | None
    """Null until the run was analysed; the list never waits for an analysis."""
    verdict: str | None
    last_step: int | None
    summary: RunSummary | None
    """Of the last analysis, which may be of an earlier ``last_step``; null until the run was analysed."""


class RunList(TypedDict):
    """The runs of a log directory."""

    runs: list[RunEntry]
    problems: list[str]
    """Sentences on the log directory as a whole."""
