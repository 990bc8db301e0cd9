"""Pages made from the program, and tutorials as they are executed, without building the site."""

from __future__ import annotations

import json
import re

import doc_blocks
import doc_pages
import pytest
import typer

from alchemdriver.cli.main import app
from alchemdriver.prepare.protocols import PROTOCOLS


def test_the_command_line_page_has_every_command_and_option():
    page = doc_pages.command_line()
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        assert (f"\n## alchemdriver {name}\n" in page) == (not command.hidden), name
    for protocol in PROTOCOLS:
        part = page.split(f"\n### alchemdriver prepare {protocol.name}\n")[1].split("\n#")[0]
        for option in protocol.options:
            assert f"`{option.flag}`" in part, option.flag
        for option in protocol.needs:
            (row,) = (r for r in part.splitlines() if r.startswith(f"| `{option.flag}` "))
            assert row.endswith("| required |"), row


def test_a_docstring_keeps_its_table_and_its_equations():
    lines = """E of |x| in *eV* or ``None``, eq. 7.

| symbol | here |
|--------|------|
| λ_α    | w    |

    F = 3 kT Σ ln(ħω/kT)

weights: (k,) one per state, see :meth:`set_weights`
raises_: InputError
""".splitlines()
    found = "\n".join(doc_pages.restructured(lines))
    assert r"E of \|x\| in *eV* or ``None``, eq. 7." in found
    assert "::\n\n    | symbol | here |\n    |--------|------|\n    | λ_α    | w    |" in found
    assert "        F = 3 kT Σ ln(ħω/kT)" in found
    assert r"| weights: (k,) one per state, see ``set_weights``" in found


@pytest.mark.parametrize("name", doc_pages.NOTEBOOKS)
def test_a_notebook_has_the_blocks_of_its_tutorial(name):
    page = doc_blocks.TUTORIALS / f"{name}.md"
    book = json.loads(doc_pages.notebook(page))
    code = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
    blocks = [b for b in doc_blocks.blocks(page) if b.executable]
    assert [c.removeprefix("%%bash\n") for c in code] == [b.text.strip("\n") for b in blocks]
    said = "".join("".join(c["source"]) for c in book["cells"] if c["cell_type"] == "markdown")
    assert "```" not in said
    assert "<!--" not in said
    assert said.startswith("# ")
    assert said.rstrip().endswith(page.read_text().rstrip()[-40:])


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(doc_blocks, "ROOT", tmp_path)

    def write(text: str):
        path = tmp_path / "page.md"
        path.write_text(text)
        return path

    return write


def test_a_page_is_executed_in_order_and_shows_what_came_out(page, tmp_path):
    text = """First.

```python
x = 41
open("x", "w").write(str(x))
```

```bash
for i in 1 2 3; do echo line $i; done
cat x
```

<!-- output: 2 -->

<!-- not run: hours -->
```
exit 1
```

```python
print(x + 1)
```

<!-- output -->
"""
    done = doc_blocks.execute(page(text), tmp_path / "run")
    outputs = re.findall(r"```text\n(.*?)```", done, re.S)
    assert outputs == ["…\nline 3\n41\n", "42\n"]
    assert "output" not in done.replace("exit 1", "")
    assert done.startswith("First.\n")


@pytest.mark.parametrize("block", ["```bash\nfalse\n```\n", "```python\n1 / 0\n```\n"])
def test_a_page_that_fails_names_the_block(page, tmp_path, block):
    with pytest.raises(RuntimeError, match=r"page\.md:3"):
        doc_blocks.execute(page(f"Text.\n\n{block}"), tmp_path / "run")
