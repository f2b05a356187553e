"""The loop: one model on one fold, with its best epoch chosen on the validation patients."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from momkd.errors import TrainingError
from momkd.experiment import ModelSettings, TrainSettings
from momkd.models.closed_form import ClosedForm
from momkd.models.memory import UNKNOWN
from momkd.models.method import Method, PairedModel, PatientRows, TrainingSet
from momkd.models.outcome import make_outcome
from momkd.models.registry import make_method
from momkd.parallel.stopping import StopRequested
from momkd.student.threads import use_threads
from momkd.training.batches import PackedSlides, Step, training_steps
from momkd.training.device import make_engine, training_precision
from momkd.training.diagnostics import history_row
from momkd.training.initialise import begin_epoch
from momkd.training.judge import judge, score_name, score_words, what_lacks
from momkd.training.parameters import clip_gradients, parameter_groups, set_learning_rate
from momkd.training.ranks import current
from momkd.training.resume import Progress, load_point, save_point
from momkd.training.sampler import balanced_epoch, shuffled_epoch
from momkd.training.samples import FitData, Sample, targets_of
from momkd.training.schedule import WeightAverage, cosine_factor, epochs_of
from momkd.training.seeds import derive_seed, generator
from momkd.training.solve import solve

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
EpochCallback = Callable[[dict[str, float]], None]
# Seconds: who is told to stop has eight for the end of an epoch and the writing of a resume point.
_LONG_EPOCH = 4.0


@dataclass(frozen=True, eq=False)
class FitResult:
    """The model at its best epoch, and how it got there: one dict an epoch in ``history``."""

    model: Method
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


def fit(
    data: FitData,
    model_settings: ModelSettings,
    settings: TrainSettings,
    *,
    resume_file: Path | None = None,
    save_every_seconds: float = 20.0,
    on_epoch: EpochCallback | None = None,
) -> FitResult:
    """Train one network (``schedule`` says how a fit ends and which weights are kept).

    ``on_epoch`` may raise StopRequested, which is raised again when the resume point is written. All randomness comes
    from ``settings.seed`` and the epoch number, so a fit that resumes from ``resume_file`` ends
    in the same bytes as one that was never stopped. Raises TrainingError when a loss is not finite, where validation
    patients of one class, or without a pair to compare, are to choose an epoch, and where all epochs would be
    preparation.
    """
    threads = torch.get_num_threads() if settings.threads == "auto" else settings.threads
    with _own_random_state(), use_threads(threads):
        one = _Fit(data, model_settings, settings, resume_file, save_every_seconds, on_epoch)
        return one.solve() if isinstance(one.model, ClosedForm) else one.run()


class _Fit:
    """The state of one fit; ``run`` reads as the algorithm."""

    def __init__(
        self,
        data: FitData,
        model_settings: ModelSettings,
        settings: TrainSettings,
        resume_file: Path | None,
        save_every_seconds: float,
        on_epoch: EpochCallback | None,
    ) -> None:
        self.data, self.settings = data, settings
        self.resume_file, self.save_every_seconds, self.on_epoch = resume_file, save_every_seconds, on_epoch
        self.epochs = epochs_of(settings, len(data.train))
        self.ranks = current()
        self.ranks.check(settings.slides_a_step)
        self.steps_an_epoch = -(-len(data.train) // settings.slides_a_step)
        self.engine = make_engine(settings)
        torch.manual_seed(derive_seed(settings.seed, "weights"))
        method = make_method(data.width, make_outcome(data.task), model_settings, data.genes)
        self.model = method.to(self.engine.device)
        self.preparation = method.preparation(self.epochs)
        if self.preparation >= self.epochs:
            raise TrainingError(
                f"the first {self.preparation} epochs only prepare the student, and there are {self.epochs}; raise "
                "train.epochs"
            )
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, settings), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.parameters = list(self.model.parameters())
        self.val = PackedSlides(data.val, data.bags, self.engine.device)
        self.progress = Progress(lr=settings.lr)
        self.best: dict[str, Tensor] = {}
        self.average: WeightAverage | None = None
        self.by_memory: list[Sample] = []
        self.losses: tuple[str, ...] = ()

    def run(self) -> FitResult:
        """Initialise or resume, then train, validate, keep the best or the average, stop."""
        resume_file, data = self.resume_file, self.data
        lacking = what_lacks(targets_of(data.val, data.task).double().numpy(), data.task)
        if lacking and self.settings.schedule == "plateau":
            raise TrainingError(f"{lacking}; raise cv.validation, or give train.schedule: cosine, which chooses none")
        self._start()
        if resume_file is not None and resume_file.is_file():
            self.progress, weights, self.best = load_point(resume_file, self.optimiser)
            self.model.load_state_dict(weights)
            logger.info("resumed after epoch %d", self.progress.epoch)
        if self.settings.schedule == "cosine":
            self.average = WeightAverage(self.model, self.settings.average, self.best or None)
            self.best = self.average.weights
        module, optimiser = self.engine.setup(self.model, self.optimiser)
        last_saved = time.monotonic()
        while not self._finished():
            started = time.monotonic()
            record = self._train_epoch(module, optimiser)
            try:
                self._after_epoch(record, started)
            except StopRequested:
                self._save()
                raise
            # An epoch that is too long to be waited for by who stops a fit is saved at once.
            now = time.monotonic()
            due = now - last_saved >= self.save_every_seconds or now - started >= _LONG_EPOCH
            if due or self._finished():
                self._save()
                last_saved = time.monotonic()
        self.model.load_state_dict(self.best)
        self.model.eval()
        return FitResult(self.model, self.progress.history, self.progress.best_epoch, self.progress.seconds)

    def _save(self) -> None:
        if self.resume_file is not None and self.ranks.first:
            save_point(self.resume_file, self.progress, self.model.state_dict(), self.best, self.optimiser)

    def solve(self) -> FitResult:
        """A method that is solved has a history of one epoch."""
        started, name = time.monotonic(), score_name(self.data.task)
        self._start()
        solve(self.model, self.data)
        value, loss = validate(self.model, self.data, self.val)
        row = {"epoch": 1.0, name: value, "val_loss": loss}
        if self.on_epoch is not None:
            self.on_epoch(row)
        return FitResult(self.model, [row], 1, time.monotonic() - started)

    def _start(self) -> None:
        """What the training targets and profiles alone say: averages, memory classes, prototypes."""
        data, outcome, device = self.data, self.model.student.outcome, self.engine.device
        # An outcome learns its bins from the targets, so memory classes come after the student's start.
        targets = targets_of(data.train, data.task).to(device)
        outcome.start(targets)
        memory_class = outcome.memory_class(targets)
        self.by_memory = [
            dataclasses.replace(sample, label=label)
            for sample, label in zip(data.train, memory_class.tolist(), strict=True)
        ]
        of_patient = {sample.patient_id: sample.label for sample in self.by_memory}
        tables = {
            name: PatientRows(
                table.rows.values[:-1],
                None if table.profiles is None else table.profiles.values[:-1],
                torch.tensor([of_patient.get(patient, UNKNOWN) for patient in table.rows.row]),
            )
            for name, table in data.tables.items()
        }
        self.model.start(TrainingSet(targets, memory_class, tables, partial(generator, self.settings.seed)))

    def _finished(self) -> bool:
        progress, settings = self.progress, self.settings
        waited = progress.epoch - max(progress.best_epoch, self.preparation)
        patient = settings.schedule == "cosine" or waited < settings.patience
        return progress.epoch > 0 and (progress.epoch >= self.epochs or not patient)

    def _train_epoch(self, module: Any, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One epoch; returns the mean of every loss over the epoch's slides."""
        settings, epoch = self.settings, self.progress.epoch + 1
        draw = balanced_epoch if settings.sampling == "balanced" else shuffled_epoch
        order = draw(self.data.train, generator(settings.seed, "sampler", epoch))
        begin_epoch(self.model, self.by_memory, self.data.bags, self.engine.device, settings.seed, epoch, self.epochs)
        # Processes that share a step compute other slides of it, so they drop other units.
        own = () if self.ranks.first else (self.ranks.rank,)
        torch.manual_seed(derive_seed(settings.seed, "dropout", epoch, *own))
        self.model.train()
        done: list[Sequence[Sample]] = []
        values: list[Tensor] = []
        outcome = self.model.student.outcome
        steps_of_epoch = training_steps(order, self.data, outcome, settings, self.engine.device, epoch, self.ranks)
        with closing(steps_of_epoch) as steps:
            for step in steps:
                values.append(self._step(module, optimiser, step, (epoch - 1) * self.steps_an_epoch + len(done)))
                done.append(step.samples)
        # Looked at once an epoch: on an accelerator every look would wait for all that is under way.
        table = torch.stack(values).cpu().double()
        broken = (~table[:, -1].isfinite()).nonzero().flatten().tolist()
        if broken:
            slides = ", ".join(sample.slide_id for sample in done[broken[0]])
            raise TrainingError(
                f"epoch {epoch}: the loss became {float(table[broken[0], -1])} on slides {slides}; lower train.lr "
                "or set features.normalize: standard"
            )
        slides_a_step = torch.tensor([len(samples) for samples in done], dtype=torch.float64)
        means = (slides_a_step @ table / len(order)).tolist()
        return {f"loss_{name}": value for name, value in zip(self.losses, means, strict=True)}

    def _step(self, module: Any, optimiser: torch.optim.Optimizer, step: Step, number: int) -> Tensor:
        """Optimiser step ``number`` of the fit, from 0; returns its losses, in the order of ``Losses``."""
        settings = self.settings
        if settings.schedule == "cosine":
            total = self.epochs * self.steps_an_epoch
            self.progress.lr = settings.lr * cosine_factor(number, total, settings.warm_up)
            set_learning_rate(self.optimiser, self.progress.lr)
        optimiser.zero_grad()
        values: list[Tensor] = []
        for part, batch in enumerate(step.batches, 1):
            # Ranks, where there are several, exchange gradients once a step.
            with self.engine.no_backward_sync(module, enabled=part < len(step.batches)):
                with training_precision(settings, self.engine.device):
                    losses = module(batch.bags, batch.lesson)
                self.engine.backward(losses.total)
            named = losses.named()
            self.losses = tuple(named)
            values.append(torch.stack([value.detach() for value in named.values()]))
        summed = values[0] if len(values) == 1 else torch.stack(values).sum(0) if values else self._nothing()
        summed = self.ranks.add_up(self.parameters, summed)
        if settings.clip > 0:
            clip_gradients(self.parameters, settings.clip)
        optimiser.step()
        self.model.after_step()
        if self.average is not None:
            self.average.update(number + 1)
        return summed

    def _nothing(self) -> Tensor:
        """The losses of a process that has no slide of a step, as the last of an epoch may be shorter."""
        return torch.zeros(len(self.losses), device=self.engine.device)

    def _after_epoch(self, record: dict[str, float], started: float) -> None:
        """Validate, keep the best weights, lower the learning rate on a plateau, write history."""
        progress, name = self.progress, score_name(self.data.task)
        progress.epoch += 1
        lr = progress.lr
        score, loss = validate(self.model, self.data, self.val, None if self.average is None else self.best)
        if self.average is not None:
            progress.best_epoch, progress.best_auc, progress.best_loss = progress.epoch, score, loss
        elif progress.epoch > self.preparation:
            # A small validation set gives ties in AUC: the lower loss decides them.
            if (score, -loss) > (progress.best_auc, -progress.best_loss):
                progress.best_epoch, progress.best_auc, progress.best_loss = progress.epoch, score, loss
                self.best = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
            self._plateau(score)
        progress.seconds += time.monotonic() - started
        row = {"epoch": float(progress.epoch), **record, name: score, "val_loss": loss, "lr": lr}
        row |= history_row(self.model)
        self.model.end_epoch()
        progress.history.append(row)
        words = score_words(self.data.task)
        logger.info("epoch %d: loss %.4f, %s %.4f", progress.epoch, row["loss_total"], words, score)
        if self.on_epoch is not None:
            self.on_epoch(row)

    def _plateau(self, auc: float) -> None:
        """Multiply the learning rate by the factor after more than ``plateau_patience`` epochs without a rise."""
        progress, settings = self.progress, self.settings
        # The relative threshold is torch's ReduceLROnPlateau default, which the published training uses.
        if auc > progress.plateau_best * (1.0 + 1e-4):
            progress.plateau_best, progress.plateau_bad_epochs = auc, 0
        else:
            progress.plateau_bad_epochs += 1
        if progress.plateau_bad_epochs > settings.plateau_patience:
            progress.lr *= settings.plateau_factor
            progress.plateau_bad_epochs = 0
            set_learning_rate(self.optimiser, progress.lr)


def score(model: Method, samples: Sequence[Sample], data: FitData, device: torch.device) -> FloatArray:
    """Scores s of slides, (slides, O) float32, in eval mode, without omics unless the method is an upper bound."""
    return _scores(model, PackedSlides(samples, data.bags, device), data.omics_of(samples), None).cpu().numpy()


@torch.inference_mode()
def _scores(model: Method, slides: PackedSlides, omics: Tensor, weights: dict[str, Tensor] | None) -> Tensor:
    """Scores, always computed in float32: what the student will say that is made of this model."""
    model.eval()
    student, prefix = model.student, "student."
    own = {} if weights is None else weights
    own = {name.removeprefix(prefix): value for name, value in own.items() if name.startswith(prefix)}
    found, done = [], 0
    for bags in slides:
        given: tuple[Any, ...] = (bags,)
        if isinstance(student, PairedModel):
            given = (bags, omics[done : done + bags.n_bags].to(bags.features.device))
        found.append((torch.func.functional_call(student, own, given) if own else student(*given)).scores)
        done += bags.n_bags
    return torch.cat(found)


@torch.inference_mode()
def validate(
    model: Method, data: FitData, slides: PackedSlides, weights: dict[str, Tensor] | None = None
) -> tuple[float, float]:
    """AUC or concordance, and mean task loss, over the validation patients, a patient being the mean of its slides.

    With ``weights`` those of the student are judged instead of the model's own.
    """
    scores = _scores(model, slides, data.omics_of(data.val), weights)
    outcome = model.student.outcome
    targets = targets_of(data.val, data.task).to(scores.device)
    loss = patient_means(outcome.loss(scores, targets).unsqueeze(1).cpu().double().numpy(), data.val)[0].mean()
    predictions, first = patient_means(outcome.predict(scores).cpu().double().numpy(), data.val)
    return judge(predictions, targets.cpu().double().numpy()[first], data.task), float(loss)


def patient_means(
    of_slides: npt.NDArray[np.float64], samples: Sequence[Sample]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean row of each patient's slides (slides, columns) → (patients, columns), sorted, and each one's first slide."""
    _, first, rows = np.unique([sample.patient_id for sample in samples], return_index=True, return_inverse=True)
    sums = np.zeros((len(first), of_slides.shape[1]))
    np.add.at(sums, rows, of_slides)
    return sums / np.bincount(rows)[:, None], first


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Run with deterministic algorithms; leave torch's random state as it was found."""
    # Not use_deterministic_algorithms: that imports torch's compiler, which takes seconds and is not used.
    options: Any = torch.utils.deterministic
    before, filling = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
        # Every element of ours is written before it is read.
        options.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before)
            options.fill_uninitialized_memory = filling
