"""Which options of the memory fit together: what is refused, and what a user should know.

An option that would change nothing is never passed over in silence: it is an error where the file alone shows it, and
a note where it depends on the losses that are on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momkd.experiment.model import LossSettings, MemorySettings, ModelSettings
    from momkd.experiment.training import TrainSettings

# What only the memory's losses and the rules that follow them look at.
_OF_LOSSES = (
    "update",
    "momentum",
    "lr_mult",
    "revive",
    "margin",
    "alignment_scale",
    "sharpness",
    "offset",
    "orthogonality",
)
_GRADIENT, _EMA = ("gradient", "hybrid"), ("ema", "hybrid")


def contradictions(memory: MemorySettings) -> list[str]:
    """Options of the memory that make no sense together, a sentence each."""
    rule, found = memory.update, []
    if rule not in _EMA and _set(memory, "momentum"):
        found.append(f"momentum {memory.momentum:g} is of rules ema and hybrid; rule {rule} has none")
    if rule not in _GRADIENT and _set(memory, "lr_mult"):
        found.append(f"lr_mult {memory.lr_mult:g} is of rules gradient and hybrid; rule {rule} has no optimiser")
    if rule not in _GRADIENT and memory.orthogonality in ("across", "both"):
        found.append(f"orthogonality {memory.orthogonality} needs a gradient; under {rule} none moves the codes")
    if memory.init == "random" and _set(memory, "init_patches"):
        found.append(f"init_patches {memory.init_patches} is of the k-means; init random has none")
    if memory.init != "warmup" and _set(memory, "warmup_epochs"):
        found.append(f"warmup_epochs {memory.warmup_epochs} is of init warmup, not of {memory.init}")
    if memory.revive and rule in ("fixed", "queue"):
        does = "never moves a code" if rule == "fixed" else "replaces every code in turn"
        found.append(f"revive {memory.revive} moves idle codes, but rule {rule} {does}; give revive: 0")
    return found + _crossings(memory)


def _crossings(memory: MemorySettings) -> list[str]:
    rule, strength = memory.update, memory.decoupling
    found = []
    if rule not in _GRADIENT and strength.classifier < 1.0:
        found.append(
            f"decoupling.classifier {strength.classifier:g} lets a gradient through to the codes, and under {rule} "
            "none moves them; give 1"
        )
    both = (strength.rna, strength.slide)
    if rule == "fixed" and any(both):
        found.append("decoupling.rna and slide say what moves the codes, and rule fixed moves none; give 0")
    elif rule == "queue" and not set(both) <= {0.0, 1.0}:
        found.append("a queue holds a projection or does not: give decoupling.rna and slide 0 or 1")
    elif rule not in ("fixed", "gradient") and both == (1.0, 1.0):
        instead = "gradient" if rule == "hybrid" else "fixed"
        found.append(f"decoupling.rna and slide are 1, so rule {rule} has no query to follow; give update: {instead}")
    return found


def conflicts(model: ModelSettings, train: TrainSettings) -> list[str]:
    """Options of the memory that the training makes impossible, a sentence each."""
    if model.name != "momkd":
        return []
    memory, found = model.memory, []
    if memory.update == "queue" and train.average > 0 and teaches(model.loss):
        found.append(
            f"model.memory.update queue puts another projection into each place, so train.average {train.average:g} "
            "would average unrelated codes; give train.average: 0"
        )
    sure_of_epochs = train.schedule == "plateau" or train.least_steps == 0
    if memory.init == "warmup" and memory.warmup_epochs >= train.epochs and sure_of_epochs:
        found.append(
            f"model.memory.warmup_epochs {memory.warmup_epochs} leaves none of train.epochs {train.epochs} with a "
            "memory; raise epochs or lower warmup_epochs"
        )
    return found


def teaches(loss: LossSettings) -> bool:
    """Whether a loss that uses the memory is on."""
    return loss.memory > 0 or loss.rna > 0 or loss.slide > 0


def memory_notes(model: ModelSettings, *, omics: bool) -> list[str]:
    """What a user should know of the memory's options; ``omics``: whether there is an omics table to teach with."""
    if model.name != "momkd":
        return []
    memory, loss, found = model.memory, model.loss, []
    if memory.codes > memory.dim:
        floor = 1.0 / memory.dim - 1.0 / memory.codes
        found.append(
            f"model.memory.codes is {memory.codes} and dim {memory.dim}: more than dim directions cannot be "
            f"orthogonal, so the orthogonality of a class cannot fall below 1/dim − 1/codes = {floor:.4f}; lower codes "
            "or raise dim"
        )
    if not omics or not teaches(loss):
        idle = [name for name in _OF_LOSSES if _set(memory, name)]
        idle += [f"decoupling.{name}" for name in ("rna", "slide") if getattr(memory.decoupling, name)]
        if idle:
            why = "there are no omics" if not omics else "model.loss.memory, rna and slide are 0"
            found.append(
                f"no loss uses the memory ({why}), so model.memory.{', '.join(idle)} "
                f"change{'s' * (len(idle) == 1)} nothing; set those weights (model.preset: published has them) or "
                "leave the option out"
            )
        return found
    followers = [f"update {memory.update}"] if memory.update in ("ema", "hybrid", "queue") else []
    followers += [f"revive {memory.revive}"] if memory.revive else []
    if followers and not _followed(memory, loss):
        found.append(
            f"model.memory.{' and '.join(followers)} follows the projections that loss.rna and loss.slide teach, and "
            "none of them is both taught and let through (decoupling), so it moves no code"
        )
    if _set(memory, "orthogonality") and memory.orthogonality != "none" and loss.memory * loss.orthogonality == 0.0:
        found.append(
            f"model.memory.orthogonality {memory.orthogonality} changes nothing: loss.memory or loss.orthogonality is 0"
        )
    return found


def _followed(memory: MemorySettings, loss: LossSettings) -> bool:
    return (loss.rna > 0 and memory.decoupling.rna < 1) or (loss.slide > 0 and memory.decoupling.slide < 1)


def _set(memory: MemorySettings, name: str) -> bool:
    """Whether an option is not at its default."""
    default: Any = type(memory).model_fields[name].default
    return bool(getattr(memory, name) != default)
