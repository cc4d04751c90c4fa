"""The texts say what the committed measurements say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.bench_patches import BATCH
from benchmarks.cases import PATCHES
from benchmarks.document import TEXTS, results, rewritten, stale
from benchmarks.figures import Report, Results, blocks, machine, measured
from benchmarks.plot import digest, plot
from benchmarks.plot_patches import PAPER, panels

MAX_CHART_BYTES = 150_000

HUNDRED = "patches: AlexNet at a quarter of the width, 10×10 scores, forward"


@pytest.fixture(scope="module")
def found() -> Results:
    return results()


def test_no_figure_and_no_chart_is_stale(found: Results) -> None:
    assert stale(found) == [], "run: python -m benchmarks.document"


def test_another_measurement_makes_texts_and_charts_stale(found: Results) -> None:
    def slower(report: Report) -> Report:
        first = report.rows[0]
        assert first.times is not None
        changed = first._replace(times=first.times._replace(median=1e4 * first.times.median))
        return report._replace(rows=[changed, *report.rows[1:]])

    names = {path.name for path in stale(Results(*map(slower, found)))}
    assert names == {"README.md", "performance.md", "performance.png", "patches.png"}


def test_every_measured_operation_has_its_block(found: Results) -> None:
    text = "".join(path.read_text() for path in TEXTS)
    assert set(measured(found.patches)) == {PATCHES}
    for name in blocks(found):
        assert f"<!-- {name} -->" in text
        assert f"<!-- /{name} -->" in text


def test_the_figures_of_the_readme_are_short(found: Results) -> None:
    assert len(blocks(found)["figures"]().splitlines()) <= 25


def test_an_unknown_block_is_named(found: Results) -> None:
    with pytest.raises(KeyError, match="unknown block 'nonsense'; there are: figures"):
        rewritten("<!-- nonsense -->\n<!-- /nonsense -->", found)


def test_what_was_not_measured_is_named(found: Results) -> None:
    fewer = found._replace(cpu=found.cpu._replace(rows=[]))
    with pytest.raises(KeyError, match="has no time of 'ours' for 'loss 21×500×500"):
        blocks(fewer)["figures"]()


def test_ratios_are_of_the_medians(found: Results) -> None:
    ours, crops = (found.patches.row(HUNDRED, name).times for name in ("ours", "crops, batched"))
    assert ours is not None
    assert crops is not None
    points = dict(panels(found.patches.rows)["AlexNet", False]["ours"])
    assert points[100] == ours.median / 100
    assert f" {crops.median / ours.median:.1f} |" in blocks(found)["patches"]()
    assert BATCH < 100
    assert PAPER[False] == pytest.approx(5.45, abs=0.01)


def test_the_machine_is_named_by_what_it_is(found: Results) -> None:
    facts = found.cpu.facts | {"processor": "Intel(R) Xeon(R) Processor", "isa": "avx512"}
    assert machine(facts).startswith(f"{facts['cores']} cores of an Intel Xeon Processor, ")
    assert "AVX-512" in machine(facts)


def test_charts_are_small_and_know_their_source(found: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    for report in found:
        path = tmp_path / "chart.png"
        plot(report.rows, report.facts, path)
        assert path.stat().st_size < MAX_CHART_BYTES
        with image.open(path) as chart:
            assert chart.text["Source"] == digest(report.rows, report.facts)
            assert chart.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_writing_and_checking(
    found: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    text = tmp_path / "README.md"
    text.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    for name, value in {"ROOT": tmp_path, "DOCS": tmp_path / "docs", "TEXTS": (text,)}.items():
        monkeypatch.setattr(document, name, value)
    monkeypatch.setattr(sys, "argv", ["document"])
    assert document.main() == 0
    assert (
        text.read_text()
        == f"before\n<!-- figures -->\n{blocks(found)['figures']()}<!-- /figures -->\nafter\n"
    )
    monkeypatch.setattr(sys, "argv", ["document", "--check"])
    assert document.main() == 0
    text.write_text("<!-- figures -->\n<!-- /figures -->")
    assert document.main() == 1
    assert "STALE: README.md" in capsys.readouterr().out
