"""What metrics are called in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_NAMES = {
    "auc": "AUC",
    "auprc": "AUPRC",
    "f1": "F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "ece": "calibration error",
    "macro_auc": "macro AUC",
    "macro_f1": "macro F1",
    "kappa": "quadratic weighted kappa",
    "class_error": "mean class error",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "concordance": "concordance",
    "c_index": "c-index (Harrell)",
    "uno_c_index": "c-index (Uno)",
}


def metric_name(key: str) -> str:
    """What a metric of metrics.json is called in words; auc_<class> is that of a class against the others."""
    if key not in _NAMES and key.startswith("auc_"):
        return f"AUC {key.removeprefix('auc_')} against the others"
    return _NAMES.get(key, key)


def interval_words(methods: Mapping[str, Sequence[str]]) -> str:
    """Which metrics have which kind of interval, from the metrics by kind; the kind of most is that of “the others”."""
    usual = max(methods, key=lambda method: len(methods[method]), default="")
    parts = []
    for method, names in methods.items():
        whose = "the others" if method == usual and len(methods) > 1 else ", ".join(names)
        parts.append(f"{whose}: {method}" if len(methods) > 1 else method)
    return "; ".join(parts)
