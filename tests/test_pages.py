"""The code of the tutorials and of other pages runs, and prints what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.docs import DOCS, docs_script

RUN = [DOCS / f"{name}.md" for name in ("index", "start", "recipes", "evaluation")]
RUN += [*sorted(DOCS.glob("tutorials/*.md")), *sorted(DOCS.glob("how-to/*.md"))]
NEEDS = {
    "serve": ["fastapi", "httpx"],
    "batch-job": ["ray.data"],
    "onnx": ["onnxscript"],
    "compare": ["matplotlib"],
    "tune": ["optuna", "matplotlib"],
}
ALONE = {"batch-job"}  # in a process of its own: Ray leaves threads behind


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_page_prints_what_it_says(page, tmp_path):
    for module in NEEDS.get(page.stem, ()):
        pytest.importorskip(module)
    if page.stem in ALONE:
        ran = subprocess.run([sys.executable, DOCS / "run_pages.py", page], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return
    run_pages = docs_script("run_pages")
    with run_pages.place(tmp_path):
        assert run_pages.differences(page) == []


PAGE = """
```python
print("one", 1 / 3)
```

```text
one 0.3...
```

```python title="mine.py"
ANSWER = 42
```

```python
from mine import ANSWER
print(ANSWER)
```

```text
41
```

```console
rm -rf everything
```
"""


def test_what_a_page_says_and_what_is_printed_are_compared(tmp_path):
    run_pages = docs_script("run_pages")
    (tmp_path / "page.md").write_text(PAGE)
    with run_pages.place(tmp_path):
        (found,) = run_pages.differences(tmp_path / "page.md")
        assert found.endswith("page.md, line 15: the page says\n41\n\nprinted is\n42\n")
        assert run_pages.rewritten(tmp_path / "page.md") == PAGE.replace("41", "42")


def test_the_script_tells_what_differs_and_writes_it(tmp_path):
    run_pages = docs_script("run_pages")
    (tmp_path / "page.md").write_text(PAGE)
    with pytest.raises(SystemExit, match="line 15: the page says\n41"):
        run_pages.main([str(tmp_path / "page.md")])
    run_pages.main(["--write", str(tmp_path / "page.md")])
    run_pages.main([str(tmp_path / "page.md")])  # ends well


def test_other_commands_than_diffgrms_are_not_run(tmp_path):
    run_pages = docs_script("run_pages")
    (tmp_path / "page.md").write_text("```sh\nrm -rf everything\n```\n")
    with pytest.raises(ValueError, match="'rm -rf everything' is no command of diffgrm; show other commands in a block of"):
        run_pages.differences(tmp_path / "page.md")
