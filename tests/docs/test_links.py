"""What the pages say exists, exists."""

from __future__ import annotations

import re
from pathlib import Path

import doc_blocks

from alchemdriver.contract.parameters import KEYS
from alchemdriver.prepare.protocols import PROTOCOLS

ROOT = Path(__file__).parents[2]


def test_every_key_and_protocol_is_documented():
    docs = (ROOT / "docs" / "server-and-clients.md").read_text()
    for key in KEYS:
        assert f"`{key}`" in docs, key
    protocols = (ROOT / "docs" / "protocols.md").read_text()
    for protocol in PROTOCOLS:
        assert f"`{protocol.name}`" in protocols, protocol.name


def test_files_that_the_docs_name_exist():
    for page in doc_blocks.pages():
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\((?!https?:|mailto:)([^)#]+)(?:#[^)]*)?\)", text):
            if "generated/" not in link:  # what the build writes
                assert (page.parent / link).exists(), f"{page.name}: {link}"
