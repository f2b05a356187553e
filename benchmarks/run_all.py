"""Run every quick benchmark, one table each; the study on the real cohort (tcga_brca.py) takes longer and is not here.

python benchmarks/run_all.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = (
    ["training_step.py"],
    ["training_step.py", "--patches", "1000", "5000", "15000", "50000", "--without-plain"],
    ["inference.py"],
    ["inference.py", "--giant", "200000"],
    ["memory.py"],
    ["precision.py"],
    ["knn.py"],
    ["store.py"],
    ["store.py", "--preset", "published"],
)


def main() -> None:
    """Run them in turn; stop at the first that fails."""
    for script, *options in COMMANDS:
        print(f"\n## {' '.join([script, *options])}\n", flush=True)
        subprocess.run([sys.executable, str(HERE / script), *options], check=True)


if __name__ == "__main__":
    main()
