"""What the summary page tells a user to do must work (the page in a browser: tests/nni_darts/experiment/test_live.py)."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.genotypes import genotype_from_code, genotype_from_text
from nni_darts.recipe import Recipe
from nni_darts.report.cost import network_cost
from nni_darts.report.summary import summarize, write_summary


@pytest.mark.parametrize('space', ['darts', 'nasbench201'])
def test_the_cell_on_the_page_retrains_with_the_recipe_on_the_page(space: str, tmp_path: Path) -> None:
    changes = {'space': {'name': space, 'channels': 4, 'cells': 3}, 'retrain.cells': 3, 'search.random_samples': 1}
    protocol = Protocol(Recipe.load('digits', changes), ('random',), (1,))
    results = {job.key: {'default': 0.5, 'arch': job.arch, 'seconds': 1.0} for job in protocol.jobs({}, ())}
    write_summary(tmp_path, summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=True))
    page = (tmp_path / 'summary.html').read_text()
    (name,) = re.findall(r'nni-darts retrain --genotype random\.json --recipe (\S+) ', page)
    text = html.unescape(re.findall(r'<pre>(\{.*?\})</pre>', page)[0])
    genotype = genotype_from_text(text)
    assert [genotype_from_code(result['arch']) for result in results.values()] == [genotype]
    retrain = Recipe.load(name).retrain
    assert network_cost(genotype, channels=retrain.channels, cells=retrain.cells, num_classes=10).parameters > 0
