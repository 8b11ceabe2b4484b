"""The Makefile, as far as it runs without an environment."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_clean_leaves_of_the_results_what_is_in_git(tmp_path: Path) -> None:
    for place in ("results/README.md", "results/table/micro/manifest.json", "results/.left.new/a", ".snakemake/log"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "results"]
        assert [path.name for path in (tmp_path / "results").iterdir()] == ["README.md"]
