"""axe-core finds no serious fault in a report, in both languages, light and dark, wide and narrow.

axe-core is no dependency: `npm install --no-save axe-core` in the clone puts it into node_modules.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium
from test_report import make_run

from headstart.reporting.page import write_report

AXE = Path(os.environ.get("AXE", Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"))
RUN = """() => axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations
  .filter((v) => ["serious", "critical"].includes(v.impact))
  .map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120)).join(" | ")}`))"""


def faults(page: Any) -> list[str]:
    """What axe-core calls serious or critical in a page, with the first elements concerned."""
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(RUN)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm install axe-core")
def test_a_report_has_no_serious_fault_of_accessibility(tmp_path: Path, language: str) -> None:
    run, sources = make_run(tmp_path)
    address = write_report(run, sources, language).as_uri()
    with chromium() as browser:
        for width, scheme in ((390, "light"), (1280, "light"), (1280, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(address, timeout=120_000)
            assert faults(page) == [], (width, scheme)
            page.close()


@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm install axe-core")
def test_the_control_an_image_without_a_text_is_a_fault(tmp_path: Path) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.set_content("<html lang=en><title>a</title><main><img src='data:,'></main>")
        assert [fault.partition(":")[0] for fault in faults(page)] == ["image-alt"]
