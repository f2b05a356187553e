"""The loop: one model on one fold, with its best epoch chosen on the validation patients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from momkd.errors import TrainingError
from momkd.experiment import LossSettings, ModelSettings, TrainSettings
from momkd.models.momkd import Losses, MoMKD
from momkd.student.threads import use_threads
from momkd.training.batches import Batch, PackedSlides, Step, training_steps
from momkd.training.device import make_fabric, training_precision
from momkd.training.initialise import initialise_memory
from momkd.training.resume import Progress, load_point, save_point
from momkd.training.sampler import balanced_epoch
from momkd.training.samples import FitData, Sample
from momkd.training.seeds import derive_seed, generator

if TYPE_CHECKING:
    from lightning_fabric.wrappers import _FabricModule

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
EpochCallback = Callable[[dict[str, float]], None]
_LOSSES = tuple(field.name for field in fields(Losses))


@dataclass(frozen=True, eq=False)
class FitResult:
    """The model at its best epoch, and how it got there: one dict an epoch in ``history``."""

    model: MoMKD
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
    """Train until the validation AUC has not risen for ``patience`` epochs; the best epoch wins.

    All randomness comes from ``settings.seed`` and the epoch number, so a fit that resumes from ``resume_file`` ends
    in the same bytes as one that was never stopped. Raises TrainingError when a loss is not finite.
    """
    if len({sample.label for sample in data.val}) < len(data.classes):
        raise TrainingError("the validation patients are not of all classes, so no AUC can choose the best epoch")
    threads = torch.get_num_threads() if settings.threads == "auto" else settings.threads
    with _own_random_state(), use_threads(threads):
        return _Fit(data, model_settings, settings, resume_file, save_every_seconds, on_epoch).run()


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
        self.data, self.settings, self.weights = data, settings, model_settings.loss
        self.resume_file, self.save_every_seconds, self.on_epoch = resume_file, save_every_seconds, on_epoch
        self.fabric = make_fabric(settings)
        torch.manual_seed(derive_seed(settings.seed, "weights"))
        self.model = MoMKD(data.width, data.n_genes, len(data.classes), model_settings).to(self.fabric.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.parameters = list(self.model.parameters())
        self.val = PackedSlides(data.val, data.bags, self.fabric.device)
        self.progress = Progress(lr=settings.lr)
        self.best: dict[str, Tensor] = {}

    def run(self) -> FitResult:
        """Initialise or resume, then train, validate, keep the best, stop."""
        resume_file, device = self.resume_file, self.fabric.device
        if resume_file is not None and resume_file.is_file():
            self.progress, weights, self.best = load_point(resume_file, self.optimiser)
            self.model.load_state_dict(weights)
            logger.info("resumed after epoch %d", self.progress.epoch)
        else:
            initialise_memory(self.model, self.data.train, self.data.bags, device, self.settings.seed)
        module, optimiser = self.fabric.setup(self.model, self.optimiser)
        last_saved = time.monotonic()
        while not self._finished():
            started = time.monotonic()
            record = self._train_epoch(module, optimiser)
            self._after_epoch(record, started)
            if resume_file is not None and time.monotonic() - last_saved >= self.save_every_seconds:
                save_point(resume_file, self.progress, self.model.state_dict(), self.best, self.optimiser)
                last_saved = time.monotonic()
        self.model.load_state_dict(self.best)
        self.model.eval()
        return FitResult(self.model, self.progress.history, self.progress.best_epoch, self.progress.seconds)

    def _finished(self) -> bool:
        progress = self.progress
        return (
            progress.epoch >= self.settings.epochs or progress.epoch - progress.best_epoch >= self.settings.patience
        ) and progress.epoch > 0

    def _train_epoch(self, module: _FabricModule, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One epoch of balanced draws; returns the mean of every loss over the epoch's slides."""
        settings, epoch = self.settings, self.progress.epoch + 1
        order = balanced_epoch(self.data.train, generator(settings.seed, "sampler", epoch))
        torch.manual_seed(derive_seed(settings.seed, "dropout", epoch))
        self.model.train()
        done: list[Sequence[Sample]] = []
        values: list[Tensor] = []
        with closing(training_steps(order, self.data, settings, self.fabric.device, epoch)) as steps:
            for step in steps:
                values.append(self._step(module, optimiser, step))
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
        return {f"loss_{name}": value for name, value in zip(_LOSSES, means, strict=True)}

    def _step(self, module: _FabricModule, optimiser: torch.optim.Optimizer, step: Step) -> Tensor:
        """One optimiser step; returns its losses, those of all its slides together, in the order of ``Losses``."""
        optimiser.zero_grad()
        values: list[Tensor] = []
        for number, batch in enumerate(step.batches, 1):
            # Ranks, where there are several, exchange gradients once a step.
            with self.fabric.no_backward_sync(module, enabled=number < len(step.batches)):
                with training_precision(self.settings, self.fabric.device):
                    whole = module(batch.bags, batch.labels, batch.rna, batch.paired)
                losses = part_of_step(whole, batch, self.weights)
                self.fabric.backward(losses.total)
            values.append(torch.stack([getattr(losses, name).detach() for name in _LOSSES]))
        if self.settings.clip > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        optimiser.step()
        return values[0] if len(values) == 1 else torch.stack(values).sum(0)

    def _after_epoch(self, record: dict[str, float], started: float) -> None:
        """Validate, keep the best weights, lower the learning rate on a plateau, write history."""
        progress = self.progress
        progress.epoch += 1
        auc, loss = validate(self.model, self.data.val, self.val)
        # A small validation set gives ties in AUC: the lower loss decides them.
        if (auc, -loss) > (progress.best_auc, -progress.best_loss):
            progress.best_epoch, progress.best_auc, progress.best_loss = progress.epoch, auc, loss
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        lr = progress.lr
        self._plateau(auc)
        progress.seconds += time.monotonic() - started
        temperature = float(self.model.student.log_temperature.detach().exp().clamp(0.01, 2.0))
        row = {"epoch": float(progress.epoch), **record, "val_auc": auc, "val_loss": loss, "lr": lr}
        row["temperature"] = temperature
        progress.history.append(row)
        logger.info("epoch %d: loss %.4f, validation AUC %.4f", progress.epoch, row["loss_total"], auc)
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
            for group in self.optimiser.param_groups:
                group["lr"] = progress.lr


def part_of_step(losses: Losses, batch: Batch, weights: LossSettings) -> Losses:
    """What a batch adds to the losses of its step; over the batches of a step these sum to those of all its slides.

    Each loss is a mean over the slides that have it, so it counts by the share of the step's such slides.
    """
    if batch.share == 1.0:
        return losses
    part = {name: getattr(losses, name) * batch.share for name in ("task", "memory", "slide")}
    part |= {name: getattr(losses, name) * batch.paired_share for name in ("rna", "reconstruction")}
    total = torch.stack([getattr(weights, name) * value for name, value in part.items()]).sum()
    return Losses(**part, total=total)


def score(model: MoMKD, samples: Sequence[Sample], data: FitData, device: torch.device) -> FloatArray:
    """Class probabilities of slides, (slides, classes) float64, in eval mode and without RNA."""
    return _score(model, PackedSlides(samples, data.bags, device))


@torch.inference_mode()
def _score(model: MoMKD, slides: PackedSlides) -> FloatArray:
    """Class probabilities, always computed in float32: what the student will say that is made of this model."""
    model.eval()
    return np.concatenate([torch.softmax(model.student(bags).logits.double(), dim=-1).cpu().numpy() for bags in slides])


def validate(model: MoMKD, samples: Sequence[Sample], slides: PackedSlides) -> tuple[float, float]:
    """AUC and mean cross-entropy over the patients of ``samples``, a patient being the mean of its slides."""
    prob, labels = patient_probabilities(_score(model, slides), samples)
    loss = float(-np.log(np.clip(prob[np.arange(len(labels)), labels], 1e-12, None)).mean())
    return float(roc_auc_score(labels, prob[:, 1])), loss


def patient_probabilities(
    slide_prob: FloatArray, samples: Sequence[Sample]
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Mean probability of each patient's slides, patients in sorted order, and their labels."""
    patients = sorted({sample.patient_id: sample.label for sample in samples}.items())
    position = {patient: i for i, (patient, _) in enumerate(patients)}
    rows = np.array([position[sample.patient_id] for sample in samples])
    sums = np.zeros((len(patients), slide_prob.shape[1]))
    np.add.at(sums, rows, slide_prob)
    counts = np.bincount(rows, minlength=len(patients))[:, None]
    return sums / counts, np.array([label for _, label in patients])


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Run with deterministic algorithms; leave torch's random state as it was found."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
