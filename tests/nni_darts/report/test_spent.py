from __future__ import annotations

import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.recipes import Recipe
from nni_darts.report.plot import HEIGHT, WIDTH, Mark, plot
from nni_darts.report.summary import summarize, write_summary

SVG = '{http://www.w3.org/2000/svg}'


def test_a_mark_stands_at_its_means_with_whiskers_of_one_deviation() -> None:
    marks = [Mark('a', [10, 20, 30], [0.5, 0.7, 0.9]), Mark('b <&', [100], [0.6])]
    root = ElementTree.fromstring(plot(marks, cost_label='seconds', value_label='accuracy'))
    first, second = root.findall(f'{SVG}g')
    assert second.find(f'{SVG}text').text == 'b <&'
    assert first.find(f'{SVG}title').text == 'a: 0.7 ± 0.2 at 20 ± 10'
    # Place and number are linear in each other: the ticks say how.
    scale = {(text.get('text-anchor')): [] for text in root.findall(f'{SVG}text')}
    for text in root.findall(f'{SVG}text'):
        if re.fullmatch(r'[\d.]+', text.text):
            scale[text.get('text-anchor')].append((float(text.get('x' if text.get('text-anchor') == 'middle' else 'y')), float(text.text)))

    def number(place: float, anchor: str) -> float:
        (low, at_low), *_, (high, at_high) = scale[anchor]
        return at_low + (place - low) / (high - low) * (at_high - at_low)

    circle = first.find(f'{SVG}circle')
    assert number(float(circle.get('cx')), 'middle') == pytest.approx(20, abs=0.2)
    assert number(float(circle.get('cy')) + 4, 'end') == pytest.approx(0.7, abs=2e-3)
    across, up, _ = first.findall(f'{SVG}line')
    assert [number(float(across.get(end)), 'middle') for end in ('x1', 'x2')] == pytest.approx([10, 30], abs=0.2)
    assert [number(float(up.get(end)) + 4, 'end') for end in ('y1', 'y2')] == pytest.approx([0.5, 0.9], abs=2e-3)


@pytest.mark.parametrize('count', [1, 8, 40])
def test_names_do_not_overlap_and_stay_inside(count: int) -> None:
    rng = random.Random(0)
    marks = [Mark(f'strategy {index}', [rng.random()], [0.9 + 0.001 * rng.random()]) for index in range(count)]
    root = ElementTree.fromstring(plot(marks, cost_label='x', value_label='y'))
    rows = sorted(float(group.find(f'{SVG}text').get('y')) for group in root.findall(f'{SVG}g'))
    assert all(b - a >= min(14.9, 0.99 * (HEIGHT - 68) / max(1, count - 1)) for a, b in zip(rows, rows[1:]))
    places = [float(element.get(key)) for element in root.iter() for key in ('y', 'y1', 'y2', 'cy') if element.get(key)]
    assert 0 <= min(places) and max(places) <= HEIGHT
    assert all(0 <= float(circle.get('cx')) <= WIDTH for circle in root.iter(f'{SVG}circle'))


def test_a_front_and_limits_lie_on_the_axes_of_the_marks() -> None:
    marks = [Mark('a', [10.0], [0.5], 3), Mark('b', [30.0], [0.9]), Mark('c', [20.0], [0.7], 3)]
    svg = plot(marks, cost_label='x', value_label='y', front=[(10.0, 0.5), (30.0, 0.9)], limits=[20.0, 40.0])
    root = ElementTree.fromstring(svg)
    circles = [group.find(f'{SVG}circle') for group in root.findall(f'{SVG}g')]
    places = [(float(circle.get('cx')), float(circle.get('cy'))) for circle in circles]
    (path,) = (element.get('d').split() for element in root.findall(f'{SVG}path'))
    assert [float(path[index]) for index in (1, 2)] == pytest.approx(places[0], abs=0.1)
    assert [float(path[index]) for index in (4, 6)] == pytest.approx(places[1], abs=0.1)
    lines = [line for line in root.findall(f'{SVG}line') if line.get('stroke-opacity') == '0.8']
    assert [float(line.get('x1')) for line in lines] == pytest.approx([places[2][0], 2 * places[1][0] - places[2][0]], abs=0.2)
    assert [text.text for text in root.findall(f'{SVG}text') if text.text.startswith('limit')] == ['limit 20', 'limit 40']
    styles = [circle.get('style') for circle in circles]
    assert styles[0] == styles[2] != styles[1]


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match='nothing'):
        plot([], cost_label='x', value_label='y')


def test_the_summary_has_data_and_plot(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {'budget.passes': 30})
    protocol = Protocol(recipe, ('darts-2nd', 'random'), (1, 2))
    codes = [cell.code() for cell in recipe.random_cells(1)]
    results = {f'search darts-2nd {seed}': {'default': 0.1, 'arch': codes[0], 'seconds': 100.0 * seed, 'passes': 22.5} for seed in (1, 2)}
    for job in protocol.jobs(results, ()):
        if job.stage == 'select' and job.seed == 1:
            results[job.key] = {'default': 0.5 + 0.01 * job.cell, 'arch': job.arch, 'seconds': 7.0, 'passes': 5.6}
    jobs = protocol.jobs(results, ())
    summary = summarize(protocol, jobs, Standing(results), [], over=False)
    searched, drawn = summary['strategies']
    assert searched['spent'] == [{'seed': 1, 'valid': 0.5, 'seconds': 107.0, 'passes': 28.1}]
    assert drawn['spent'] == [{'seed': 1, 'valid': 0.55, 'seconds': 35.0, 'passes': 28.0}]
    write_summary(tmp_path, summary)
    page = (tmp_path / 'summary.html').read_text()
    assert '<svg' in page and 'budget of 30 passes' in page and 'darts-2nd 28.1, random 28' in page
    assert '://' not in page.replace('http://www.w3.org/2000/svg', '')


def test_no_plot_without_results(tmp_path: Path) -> None:
    protocol = Protocol(Recipe.load('digits'), ('darts-2nd', 'random'), (1,))
    write_summary(tmp_path, summarize(protocol, protocol.jobs({}, ()), Standing(), [], over=False))
    assert '<svg' not in (tmp_path / 'summary.html').read_text()
